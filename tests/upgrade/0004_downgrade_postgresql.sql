DO $statekit$
DECLARE
  revoked text;
BEGIN
  IF pg_catalog.current_setting('server_version_num')::int < 140000 THEN
    RAISE EXCEPTION USING ERRCODE = 'feature_not_supported',
      MESSAGE = 'statekit''s triggers need PostgreSQL 14 or later, and this is '
        || pg_catalog.current_setting('server_version');
  END IF;
  -- Until the transaction ends: two that replace the same function at once would fail.
  PERFORM pg_catalog.pg_advisory_xact_lock(7165918366131643745);
  -- Not IF NOT EXISTS, which asks for the right to create schemas also where there is nothing to create.
  IF pg_catalog.to_regnamespace('statekit') IS NULL THEN
    IF NOT pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE') THEN
      RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
        MESSAGE = 'The role ' || current_user || ' may not make the schema statekit, which holds the functions and counters of triggers',
        HINT = 'As a superuser or the owner of the database: CREATE SCHEMA statekit AUTHORIZATION '
          || pg_catalog.quote_ident(current_user) || ';';
    END IF;
    CREATE SCHEMA statekit;
    COMMENT ON SCHEMA statekit IS 'Functions and counters of statekit''s triggers.';
    REVOKE ALL ON SCHEMA statekit FROM PUBLIC;
    -- Whatever default privileges have given to others.
    FOR revoked IN
      SELECT g.grantee::pg_catalog.regrole::text FROM pg_catalog.pg_namespace n
      CROSS JOIN LATERAL pg_catalog.aclexplode(n.nspacl) g
      WHERE n.nspname = 'statekit' AND g.grantee NOT IN (n.nspowner, 0)
    LOOP
      EXECUTE 'REVOKE ALL ON SCHEMA statekit FROM ' || revoked;
    END LOOP;
  END IF;
  IF NOT (pg_catalog.has_schema_privilege('statekit', 'USAGE') AND pg_catalog.has_schema_privilege('statekit', 'CREATE'))
  THEN
    RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
      MESSAGE = 'The role ' || current_user || ' may not make triggers: the schema statekit belongs to another role',
      HINT = 'As that role: GRANT USAGE, CREATE ON SCHEMA statekit TO ' || pg_catalog.quote_ident(current_user) || ';';
  END IF;
  IF pg_catalog.to_regprocedure('statekit.counts_v1()') IS NULL THEN
    -- Without a privilege, pg_sequence_last_value gives NULL or an error, depending on the version: whoever may call
    -- this function reads the true number, or NULL where the function's owner may not either.
    CREATE FUNCTION statekit.counts_v1(
      OUT "schema" pg_catalog.text, OUT "table" pg_catalog.text, OUT "column" pg_catalog.text,
      OUT kind pg_catalog.text, OUT new_row pg_catalog.bool, OUT source pg_catalog.text, OUT target pg_catalog.text,
      OUT number pg_catalog.int8, OUT "trigger" pg_catalog.text
    ) RETURNS SETOF pg_catalog.record
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $counts$
      SELECT about ->> 'schema', about ->> 'table', about ->> 'column',
             about ->> 'kind', (about ->> 'new')::bool, about ->> 'source', about ->> 'target',
             CASE WHEN has_sequence_privilege(counter, 'USAGE, SELECT')
                  THEN coalesce(pg_sequence_last_value(counter), 0) END,
             about ->> 'trigger'
      FROM (
        SELECT c.oid AS counter, obj_description(c.oid, 'pg_class')::jsonb AS about
        FROM pg_class c
        WHERE c.relnamespace = to_regnamespace('statekit') AND c.relkind = 'S' AND starts_with(c.relname::text, 'statekit_')
      ) counters
    $counts$;
    REVOKE ALL ON FUNCTION statekit.counts_v1() FROM PUBLIC;
    FOR revoked IN
      SELECT g.grantee::pg_catalog.regrole::text FROM pg_catalog.pg_proc p
      CROSS JOIN LATERAL pg_catalog.aclexplode(p.proacl) g
      WHERE p.oid = 'statekit.counts_v1()'::pg_catalog.regprocedure AND g.grantee NOT IN (p.proowner, 0)
    LOOP
      EXECUTE 'REVOKE ALL ON FUNCTION statekit.counts_v1() FROM ' || revoked;
    END LOOP;
  END IF;
END
$statekit$;

DO $statekit$
DECLARE
  root CONSTANT regclass := pg_catalog.to_regclass('"message"');
BEGIN
  IF root IS NULL THEN
    RAISE EXCEPTION USING ERRCODE = 'undefined_table', MESSAGE = 'There is no table ' || 'message',
      HINT = 'Name its schema where the search path (' || pg_catalog.current_setting('search_path')
        || ') does not lead there: schema=...';
  END IF;
  PERFORM 1 FROM pg_catalog.pg_trigger t WHERE t.tgrelid = root AND t.tgname = 'statekit_message_status_d0d43d01';
  IF NOT FOUND THEN
    RAISE EXCEPTION USING ERRCODE = 'undefined_object',
      MESSAGE = root::text || ' has no trigger statekit_message_status_d0d43d01, which was to get a new rule',
      HINT = 'Create it anew, with create_state_trigger.';
  END IF;
END
$statekit$;

DO $statekit$
DECLARE
  root CONSTANT regclass := pg_catalog.to_regclass('"message"');
  search_path CONSTANT text := pg_catalog.current_setting('search_path');
  about record;
  state text;
  stored text;
BEGIN
  IF root IS NULL THEN
    RAISE EXCEPTION USING ERRCODE = 'undefined_table', MESSAGE = 'There is no table ' || 'message',
      HINT = 'Name its schema where the search path (' || search_path || ') does not lead there: schema=...';
  END IF;
  PERFORM pg_catalog.set_config('search_path', 'pg_catalog', true);  -- as where the trigger is made
  SELECT a.atttypid, pg_catalog.format_type(a.atttypid, a.atttypmod) AS type, t.typtype,
         coalesce(l.collisdeterministic, true) AS is_deterministic
  INTO about
  FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
  LEFT JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation
  WHERE a.attrelid = root AND a.attname = 'status' AND a.attnum > 0 AND NOT a.attisdropped;
  IF NOT FOUND THEN
    RAISE EXCEPTION USING ERRCODE = 'undefined_column', MESSAGE = 'message' || ' has no column ' || 'status';
  END IF;
  IF NOT about.is_deterministic THEN
    RAISE EXCEPTION USING ERRCODE = 'feature_not_supported',
      MESSAGE = 'message' || '.status' || ' has a collation for which different texts are equal, so that its states cannot be told apart',
      HINT = 'Give the column a deterministic collation, such as "C".';
  END IF;
  FOR state IN SELECT pg_catalog.jsonb_array_elements_text('["READY", "SPAM_REVIEW", "ASSIGNED", "COMPLETED", "ARCHIVED", "PROMOTED"]'::pg_catalog.jsonb) LOOP
    CONTINUE WHEN state IS NULL;
    IF about.typtype = 'e' THEN
      -- Not by a cast: a label that this very transaction has added must not be used in it.
      PERFORM 1 FROM pg_catalog.pg_enum e WHERE e.enumtypid = about.atttypid AND e.enumlabel = state;
      IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'feature_not_supported',
          MESSAGE = 'message' || '.status' || ' is of the enum type ' || about.type || ', which has no label '
            || pg_catalog.quote_literal(state),
          HINT = 'Add it before, in the same migration: ALTER TYPE ' || about.type || ' ADD VALUE IF NOT EXISTS '
            || pg_catalog.quote_literal(state) || ';';
      END IF;
      stored := state;
    ELSE
      BEGIN
        EXECUTE 'SELECT CAST(s.state AS pg_catalog.text) FROM (SELECT CAST(' || pg_catalog.quote_literal(state)
          || ' AS ' || about.type || ') AS state) s WHERE s.state IS NOT DISTINCT FROM s.state' INTO stored;
      EXCEPTION WHEN OTHERS THEN
        RAISE EXCEPTION USING ERRCODE = 'feature_not_supported',
          MESSAGE = 'message' || '.status' || ' is of the type ' || about.type || ', which cannot store the state '
            || pg_catalog.quote_literal(state) || ': ' || SQLERRM,
          HINT = 'Name the states as the database stores them, in a text, enum or integer column.';
      END;
    END IF;
    IF stored IS DISTINCT FROM state THEN
      RAISE EXCEPTION USING ERRCODE = 'feature_not_supported',
        MESSAGE = 'message' || '.status' || ' is of the type ' || about.type || ', which cannot store the state '
          || pg_catalog.quote_literal(state) || CASE WHEN stored IS NULL THEN '' ELSE ': it makes ' || pg_catalog.quote_literal(stored) || ' of it' END,
        HINT = 'Name the states as the database stores them, in a text, enum or integer column.';
    END IF;
  END LOOP;
  PERFORM pg_catalog.set_config('search_path', search_path, true);
END
$statekit$;

DO $statekit$
DECLARE
  about jsonb;
  counter text;
  thing text;
  grantee oid;
  owner CONSTANT oid := (SELECT p.proowner FROM pg_catalog.pg_proc p
                         WHERE p.oid = 'statekit.statekit_message_status_d0d43d01()'::pg_catalog.regprocedure);
  reader CONSTANT oid := (SELECT p.proowner FROM pg_catalog.pg_proc p
                          WHERE p.oid = 'statekit.counts_v1()'::pg_catalog.regprocedure);
BEGIN
  FOR counter, about IN SELECT key, value FROM pg_catalog.jsonb_each('{"statekit_message_status_d0d43d01_1ec078ff8ad2": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "READY", "target": "COMPLETED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_d3a3560b25de": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "READY", "target": "ARCHIVED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_062c3aee0c6c": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "READY", "target": "PROMOTED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_84adf6da7da4": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "READY", "target": null, "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_f0752748d298": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "SPAM_REVIEW", "target": "READY", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_64084555955e": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "SPAM_REVIEW", "target": "ASSIGNED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_c0eeef962e17": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "SPAM_REVIEW", "target": "COMPLETED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_62af2716ceaa": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "SPAM_REVIEW", "target": "ARCHIVED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_5a94eb190bda": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "SPAM_REVIEW", "target": "PROMOTED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_aadeb9ea84d1": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "SPAM_REVIEW", "target": null, "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_d7aec1e095ba": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "ASSIGNED", "target": "READY", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_53e5d72dd638": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "ASSIGNED", "target": "SPAM_REVIEW", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_6a24c3b134e9": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "ASSIGNED", "target": "ARCHIVED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_77dcd04cfaf0": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "ASSIGNED", "target": null, "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_690bb9485486": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "COMPLETED", "target": "READY", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_9c4d2d4aad60": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "COMPLETED", "target": "SPAM_REVIEW", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_0133fe8a79be": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "COMPLETED", "target": "ASSIGNED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_586d7820d7ef": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "COMPLETED", "target": "PROMOTED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_bc50a0fde7f5": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "COMPLETED", "target": null, "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_f78a112a85fc": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "ARCHIVED", "target": "READY", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_6ee4f14fe10e": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "ARCHIVED", "target": "SPAM_REVIEW", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_c279c74b3b08": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "ARCHIVED", "target": "ASSIGNED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_4aaf322f81f5": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "ARCHIVED", "target": "COMPLETED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_3f2599a14bb7": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "ARCHIVED", "target": "PROMOTED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_a678e2c1d1dc": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "ARCHIVED", "target": null, "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_f63b7e24a2a9": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "PROMOTED", "target": "READY", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_722d4d1fc9ea": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "PROMOTED", "target": "SPAM_REVIEW", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_a3cc4b45c711": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "PROMOTED", "target": "ASSIGNED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_f1996189e9e1": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "PROMOTED", "target": "COMPLETED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_02309f56d28d": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "PROMOTED", "target": "ARCHIVED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_4695cc0ec4de": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "PROMOTED", "target": null, "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_4a931f94533d": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": null, "target": "READY", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_d0acc8bd4e46": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": null, "target": "SPAM_REVIEW", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_cfab7a8379e9": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": null, "target": "ASSIGNED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_e2ec024ec6f3": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": null, "target": "COMPLETED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_248ae8b4fdca": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": null, "target": "ARCHIVED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_a956b685bedb": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": null, "target": "PROMOTED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_a3045523e41d": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": true, "source": null, "target": "SPAM_REVIEW", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_a8cb397e3688": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": true, "source": null, "target": "ASSIGNED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_5c5ccc6f6e71": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": true, "source": null, "target": "COMPLETED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_dbf2013cfe4a": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": true, "source": null, "target": "ARCHIVED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_388db50524ad": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": true, "source": null, "target": "PROMOTED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_c51ed7b37514": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": true, "source": null, "target": null, "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_569c5b67ed79": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": true, "source": null, "target": "*", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_9a06fefb9085": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "*", "target": "*", "schema": null, "table": "message", "column": "status"}}') LOOP
    IF pg_catalog.to_regclass('statekit.' || counter) IS NULL THEN
      EXECUTE 'CREATE SEQUENCE statekit.' || counter;
    END IF;
    EXECUTE 'COMMENT ON SEQUENCE statekit.' || counter || ' IS ' || pg_catalog.quote_literal(about);
  END LOOP;
  -- A superuser may have replaced the function, which then still belongs to the role that made it, and counts as that.
  FOR counter IN
    SELECT c.relname FROM pg_catalog.pg_class c
    WHERE c.relnamespace = 'statekit'::pg_catalog.regnamespace AND c.relkind = 'S' AND c.relowner <> owner
      AND pg_catalog.starts_with(c.relname::text, 'statekit_message_status_d0d43d01_')
  LOOP
    EXECUTE 'ALTER SEQUENCE statekit.' || counter || ' OWNER TO ' || owner::pg_catalog.regrole::text;
  END LOOP;
  -- Whoever writes to the table asks the rule; only the trigger counts, whatever default privileges say.
  GRANT EXECUTE ON FUNCTION statekit.statekit_message_status_d0d43d01_legal(pg_catalog.text, pg_catalog.text) TO PUBLIC;
  GRANT EXECUTE ON FUNCTION statekit.statekit_message_status_d0d43d01_initial(pg_catalog.text) TO PUBLIC;
  REVOKE ALL ON FUNCTION statekit.statekit_message_status_d0d43d01() FROM PUBLIC;
  FOR thing, grantee IN
    SELECT 'SEQUENCE statekit.' || c.relname, g.grantee FROM pg_catalog.pg_class c
    CROSS JOIN LATERAL pg_catalog.aclexplode(c.relacl) g
    WHERE c.relnamespace = 'statekit'::pg_catalog.regnamespace AND pg_catalog.starts_with(c.relname::text, 'statekit_message_status_d0d43d01_') AND c.relkind = 'S'
      AND g.grantee <> c.relowner
    UNION
    SELECT 'FUNCTION statekit.statekit_message_status_d0d43d01()', g.grantee FROM pg_catalog.pg_proc p
    CROSS JOIN LATERAL pg_catalog.aclexplode(p.proacl) g
    WHERE p.oid = 'statekit.statekit_message_status_d0d43d01()'::pg_catalog.regprocedure AND g.grantee <> p.proowner
  LOOP
    EXECUTE 'REVOKE ALL ON ' || thing || ' FROM '
      || CASE WHEN grantee = 0 THEN 'PUBLIC' ELSE grantee::pg_catalog.regrole::text END;
  END LOOP;
  -- counts_v1() reads as its owner, who may be another role.
  IF reader <> owner THEN
    FOR counter IN SELECT pg_catalog.jsonb_object_keys('{"statekit_message_status_d0d43d01_1ec078ff8ad2": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "READY", "target": "COMPLETED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_d3a3560b25de": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "READY", "target": "ARCHIVED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_062c3aee0c6c": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "READY", "target": "PROMOTED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_84adf6da7da4": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "READY", "target": null, "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_f0752748d298": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "SPAM_REVIEW", "target": "READY", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_64084555955e": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "SPAM_REVIEW", "target": "ASSIGNED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_c0eeef962e17": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "SPAM_REVIEW", "target": "COMPLETED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_62af2716ceaa": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "SPAM_REVIEW", "target": "ARCHIVED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_5a94eb190bda": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "SPAM_REVIEW", "target": "PROMOTED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_aadeb9ea84d1": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "SPAM_REVIEW", "target": null, "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_d7aec1e095ba": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "ASSIGNED", "target": "READY", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_53e5d72dd638": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "ASSIGNED", "target": "SPAM_REVIEW", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_6a24c3b134e9": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "ASSIGNED", "target": "ARCHIVED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_77dcd04cfaf0": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "ASSIGNED", "target": null, "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_690bb9485486": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "COMPLETED", "target": "READY", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_9c4d2d4aad60": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "COMPLETED", "target": "SPAM_REVIEW", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_0133fe8a79be": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "COMPLETED", "target": "ASSIGNED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_586d7820d7ef": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "COMPLETED", "target": "PROMOTED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_bc50a0fde7f5": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "COMPLETED", "target": null, "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_f78a112a85fc": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "ARCHIVED", "target": "READY", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_6ee4f14fe10e": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "ARCHIVED", "target": "SPAM_REVIEW", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_c279c74b3b08": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "ARCHIVED", "target": "ASSIGNED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_4aaf322f81f5": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "ARCHIVED", "target": "COMPLETED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_3f2599a14bb7": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "ARCHIVED", "target": "PROMOTED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_a678e2c1d1dc": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "ARCHIVED", "target": null, "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_f63b7e24a2a9": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "PROMOTED", "target": "READY", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_722d4d1fc9ea": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "PROMOTED", "target": "SPAM_REVIEW", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_a3cc4b45c711": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "PROMOTED", "target": "ASSIGNED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_f1996189e9e1": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "PROMOTED", "target": "COMPLETED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_02309f56d28d": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "PROMOTED", "target": "ARCHIVED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_4695cc0ec4de": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "PROMOTED", "target": null, "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_4a931f94533d": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": null, "target": "READY", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_d0acc8bd4e46": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": null, "target": "SPAM_REVIEW", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_cfab7a8379e9": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": null, "target": "ASSIGNED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_e2ec024ec6f3": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": null, "target": "COMPLETED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_248ae8b4fdca": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": null, "target": "ARCHIVED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_a956b685bedb": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": null, "target": "PROMOTED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_a3045523e41d": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": true, "source": null, "target": "SPAM_REVIEW", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_a8cb397e3688": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": true, "source": null, "target": "ASSIGNED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_5c5ccc6f6e71": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": true, "source": null, "target": "COMPLETED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_dbf2013cfe4a": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": true, "source": null, "target": "ARCHIVED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_388db50524ad": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": true, "source": null, "target": "PROMOTED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_c51ed7b37514": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": true, "source": null, "target": null, "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_569c5b67ed79": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": true, "source": null, "target": "*", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_9a06fefb9085": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "*", "target": "*", "schema": null, "table": "message", "column": "status"}}') LOOP
      EXECUTE 'GRANT SELECT ON SEQUENCE statekit.' || counter || ' TO ' || reader::pg_catalog.regrole::text;
    END LOOP;
  END IF;
END
$statekit$;

CREATE OR REPLACE FUNCTION statekit.statekit_message_status_d0d43d01() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $statekit$
DECLARE
  mode CONSTANT text := 'raise';
  counters CONSTANT jsonb := '{"=READY": {"=COMPLETED": "1ec078ff8ad2", "=ARCHIVED": "d3a3560b25de", "=PROMOTED": "062c3aee0c6c", "-": "84adf6da7da4"}, "=SPAM_REVIEW": {"=READY": "f0752748d298", "=ASSIGNED": "64084555955e", "=COMPLETED": "c0eeef962e17", "=ARCHIVED": "62af2716ceaa", "=PROMOTED": "5a94eb190bda", "-": "aadeb9ea84d1"}, "=ASSIGNED": {"=READY": "d7aec1e095ba", "=SPAM_REVIEW": "53e5d72dd638", "=ARCHIVED": "6a24c3b134e9", "-": "77dcd04cfaf0"}, "=COMPLETED": {"=READY": "690bb9485486", "=SPAM_REVIEW": "9c4d2d4aad60", "=ASSIGNED": "0133fe8a79be", "=PROMOTED": "586d7820d7ef", "-": "bc50a0fde7f5"}, "=ARCHIVED": {"=READY": "f78a112a85fc", "=SPAM_REVIEW": "6ee4f14fe10e", "=ASSIGNED": "c279c74b3b08", "=COMPLETED": "4aaf322f81f5", "=PROMOTED": "3f2599a14bb7", "-": "a678e2c1d1dc"}, "=PROMOTED": {"=READY": "f63b7e24a2a9", "=SPAM_REVIEW": "722d4d1fc9ea", "=ASSIGNED": "a3cc4b45c711", "=COMPLETED": "f1996189e9e1", "=ARCHIVED": "02309f56d28d", "-": "4695cc0ec4de"}, "-": {"=READY": "4a931f94533d", "=SPAM_REVIEW": "d0acc8bd4e46", "=ASSIGNED": "cfab7a8379e9", "=COMPLETED": "e2ec024ec6f3", "=ARCHIVED": "248ae8b4fdca", "=PROMOTED": "a956b685bedb"}, "+": {"=SPAM_REVIEW": "a3045523e41d", "=ASSIGNED": "a8cb397e3688", "=COMPLETED": "5c5ccc6f6e71", "=ARCHIVED": "dbf2013cfe4a", "=PROMOTED": "388db50524ad", "-": "c51ed7b37514", "*": "569c5b67ed79"}, "*": "9a06fefb9085"}';
  allowed CONSTANT jsonb := '{"+": ["READY"], "=READY": ["SPAM_REVIEW", "ASSIGNED"], "=ASSIGNED": ["COMPLETED", "PROMOTED"], "=COMPLETED": ["ARCHIVED"]}';
  is_new bool := TG_OP = 'INSERT';
  source text;
  target text;
  row_found jsonb;
  key jsonb;
  counter regclass;
  label text;
  choices text;
BEGIN
  IF mode = 'observe' AND TG_WHEN = 'AFTER' AND NOT is_new
      AND (SELECT c.relispartition FROM pg_class c WHERE c.oid = TG_RELID) THEN
    RETURN NULL;  -- counted by the BEFORE trigger, which sees rows that change their partition as well
  END IF;
  IF TG_LEVEL = 'STATEMENT' THEN
    IF mode = 'observe' THEN
      PERFORM nextval(('statekit.statekit_message_status_d0d43d01_' || coalesce(counters -> '+' ->> coalesce('=' || r."status"::text, '-'),
                                               counters -> '+' ->> '*', counters ->> '*'))::regclass)
      FROM new_rows r WHERE statekit.statekit_message_status_d0d43d01_initial(r."status"::text) IS NOT TRUE;
      RETURN NULL;
    END IF;
    SELECT r."status"::text, to_jsonb(r) INTO target, row_found
    FROM new_rows r WHERE statekit.statekit_message_status_d0d43d01_initial(r."status"::text) IS NOT TRUE LIMIT 1;
    IF NOT FOUND THEN
      RETURN NULL;
    END IF;
  ELSIF is_new THEN
    target := NEW."status"::text;
    row_found := to_jsonb(NEW);
  ELSE
    source := OLD."status"::text;
    target := NEW."status"::text;
    row_found := to_jsonb(OLD);
  END IF;

  label := CASE WHEN is_new THEN '+' ELSE coalesce('=' || source, '-') END;
  counter := ('statekit.statekit_message_status_d0d43d01_' || coalesce(counters -> label ->> coalesce('=' || target, '-'),
                                      counters -> label ->> '*', counters ->> '*'))::regclass;
  IF mode = 'observe' OR (mode = 'skip' AND TG_WHEN = 'BEFORE') THEN
    PERFORM nextval(counter);  -- no lock: it would be held until the transaction ends
    IF mode = 'observe' THEN
      RETURN NEW;
    END IF;
    RETURN NULL;
  END IF;

  IF mode = 'skip' AND NOT is_new THEN
    PERFORM nextval(counter);  -- as above, where others count the same move at the same time
  ELSE
    BEGIN
      -- Not nextval: it writes 32 numbers ahead to the log, and after a crash the count would be too high by them. The
      -- lock ends with the error below.
      PERFORM pg_advisory_xact_lock(4005440869906548365);
      PERFORM setval(counter, coalesce(pg_sequence_last_value(counter), 0) + 1);
    EXCEPTION WHEN lock_not_available THEN  -- anybody may hold an advisory lock
      PERFORM nextval(counter);
    END;
  END IF;
  IF current_setting('server_version_num')::int >= 170000 THEN
    -- A transaction that is rolled back flushes nothing: without this, a crash would lose the count.
    PERFORM pg_logical_emit_message(false, 'statekit', '', true);
  END IF;

  SELECT jsonb_agg(jsonb_build_array(a.attname, row_found -> a.attname::text) ORDER BY k.position) INTO key
  FROM pg_index i
  CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, position)
  JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
  WHERE i.indrelid = TG_RELID AND i.indisprimary;
  SELECT string_agg(coalesce(c.state, 'NULL'), ', ' ORDER BY c.position) INTO choices
  FROM jsonb_array_elements_text(allowed -> label) WITH ORDINALITY AS c(state, position);
  choices := coalesce(choices, 'nothing');
  RAISE EXCEPTION USING
    ERRCODE = 'check_violation',
    MESSAGE = 'message' || coalesce((
        SELECT '(' || string_agg((k.part ->> 0) || '=' || coalesce(k.part ->> 1, 'NULL'), ', ' ORDER BY k.position) || ')'
        FROM jsonb_array_elements(key) WITH ORDINALITY AS k(part, position)), '') || '.status'
      || CASE WHEN is_new THEN ': a new row cannot start in ' ELSE ': cannot move from ' || coalesce(source, 'NULL') || ' to ' END
      || coalesce(target, 'NULL') || '.',
    DETAIL = jsonb_build_object('statekit', 1, 'trigger', 'statekit_message_status_d0d43d01', 'new', is_new, 'source', source,
                                'target', target, 'key', key, 'allowed', coalesce(allowed -> label, '[]'))::text,
    HINT = CASE WHEN is_new THEN 'Allowed: ' ELSE 'Allowed from ' || coalesce(source, 'NULL') || ': ' END || choices || '.',
    CONSTRAINT = 'statekit_message_status_d0d43d01',
    SCHEMA = TG_TABLE_SCHEMA,
    TABLE = TG_TABLE_NAME,
    COLUMN = 'status';
END
$statekit$;

CREATE OR REPLACE FUNCTION statekit.statekit_message_status_d0d43d01_initial(state pg_catalog.text) RETURNS pg_catalog.bool LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $statekit$
BEGIN
  RETURN '["READY"]'::pg_catalog.jsonb OPERATOR(pg_catalog.?) state;
END
$statekit$;

CREATE OR REPLACE FUNCTION statekit.statekit_message_status_d0d43d01_legal(source pg_catalog.text, target pg_catalog.text) RETURNS pg_catalog.bool LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $statekit$
BEGIN
  RETURN ('{"READY": ["SPAM_REVIEW", "ASSIGNED"], "ASSIGNED": ["COMPLETED", "PROMOTED"], "COMPLETED": ["ARCHIVED"]}'::pg_catalog.jsonb OPERATOR(pg_catalog.->) source) OPERATOR(pg_catalog.?) target;
END
$statekit$;

DO $statekit$
DECLARE
  root CONSTANT regclass := '"message"'::pg_catalog.regclass;
  before jsonb;
BEGIN
  SELECT pg_catalog.obj_description(t.oid, 'pg_trigger')::pg_catalog.jsonb INTO before
  FROM pg_catalog.pg_trigger t WHERE t.tgrelid = root AND t.tgname = 'statekit_message_status_d0d43d01';
  EXECUTE 'COMMENT ON TRIGGER statekit_message_status_d0d43d01 ON ' || root::text || ' IS ' || pg_catalog.quote_literal(
    '{"statekit": {"table": "message", "column": "status", "transitions": [["READY", "SPAM_REVIEW"], ["READY", "ASSIGNED"], ["ASSIGNED", "COMPLETED"], ["COMPLETED", "ARCHIVED"], ["ASSIGNED", "PROMOTED"]], "initial": ["READY"], "schema": null, "on_illegal": "raise", "inline": false, "version": 1, "states": ["READY", "SPAM_REVIEW", "ASSIGNED", "COMPLETED", "ARCHIVED", "PROMOTED"]}, "hash": "9820e3272e173887"}'::pg_catalog.jsonb || pg_catalog.jsonb_build_object('definitions', before -> 'definitions'));
END
$statekit$;

UPDATE message SET status = 'PROMOTED' WHERE status = 'ASSIGNED';

DO $statekit$
DECLARE
  revoked text;
BEGIN
  IF pg_catalog.current_setting('server_version_num')::int < 140000 THEN
    RAISE EXCEPTION USING ERRCODE = 'feature_not_supported',
      MESSAGE = 'statekit''s triggers need PostgreSQL 14 or later, and this is '
        || pg_catalog.current_setting('server_version');
  END IF;
  -- Until the transaction ends: two that replace the same function at once would fail.
  PERFORM pg_catalog.pg_advisory_xact_lock(7165918366131643745);
  -- Not IF NOT EXISTS, which asks for the right to create schemas also where there is nothing to create.
  IF pg_catalog.to_regnamespace('statekit') IS NULL THEN
    IF NOT pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE') THEN
      RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
        MESSAGE = 'The role ' || current_user || ' may not make the schema statekit, which holds the functions and counters of triggers',
        HINT = 'As a superuser or the owner of the database: CREATE SCHEMA statekit AUTHORIZATION '
          || pg_catalog.quote_ident(current_user) || ';';
    END IF;
    CREATE SCHEMA statekit;
    COMMENT ON SCHEMA statekit IS 'Functions and counters of statekit''s triggers.';
    REVOKE ALL ON SCHEMA statekit FROM PUBLIC;
    -- Whatever default privileges have given to others.
    FOR revoked IN
      SELECT g.grantee::pg_catalog.regrole::text FROM pg_catalog.pg_namespace n
      CROSS JOIN LATERAL pg_catalog.aclexplode(n.nspacl) g
      WHERE n.nspname = 'statekit' AND g.grantee NOT IN (n.nspowner, 0)
    LOOP
      EXECUTE 'REVOKE ALL ON SCHEMA statekit FROM ' || revoked;
    END LOOP;
  END IF;
  IF NOT (pg_catalog.has_schema_privilege('statekit', 'USAGE') AND pg_catalog.has_schema_privilege('statekit', 'CREATE'))
  THEN
    RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
      MESSAGE = 'The role ' || current_user || ' may not make triggers: the schema statekit belongs to another role',
      HINT = 'As that role: GRANT USAGE, CREATE ON SCHEMA statekit TO ' || pg_catalog.quote_ident(current_user) || ';';
  END IF;
  IF pg_catalog.to_regprocedure('statekit.counts_v1()') IS NULL THEN
    -- Without a privilege, pg_sequence_last_value gives NULL or an error, depending on the version: whoever may call
    -- this function reads the true number, or NULL where the function's owner may not either.
    CREATE FUNCTION statekit.counts_v1(
      OUT "schema" pg_catalog.text, OUT "table" pg_catalog.text, OUT "column" pg_catalog.text,
      OUT kind pg_catalog.text, OUT new_row pg_catalog.bool, OUT source pg_catalog.text, OUT target pg_catalog.text,
      OUT number pg_catalog.int8, OUT "trigger" pg_catalog.text
    ) RETURNS SETOF pg_catalog.record
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $counts$
      SELECT about ->> 'schema', about ->> 'table', about ->> 'column',
             about ->> 'kind', (about ->> 'new')::bool, about ->> 'source', about ->> 'target',
             CASE WHEN has_sequence_privilege(counter, 'USAGE, SELECT')
                  THEN coalesce(pg_sequence_last_value(counter), 0) END,
             about ->> 'trigger'
      FROM (
        SELECT c.oid AS counter, obj_description(c.oid, 'pg_class')::jsonb AS about
        FROM pg_class c
        WHERE c.relnamespace = to_regnamespace('statekit') AND c.relkind = 'S' AND starts_with(c.relname::text, 'statekit_')
      ) counters
    $counts$;
    REVOKE ALL ON FUNCTION statekit.counts_v1() FROM PUBLIC;
    FOR revoked IN
      SELECT g.grantee::pg_catalog.regrole::text FROM pg_catalog.pg_proc p
      CROSS JOIN LATERAL pg_catalog.aclexplode(p.proacl) g
      WHERE p.oid = 'statekit.counts_v1()'::pg_catalog.regprocedure AND g.grantee NOT IN (p.proowner, 0)
    LOOP
      EXECUTE 'REVOKE ALL ON FUNCTION statekit.counts_v1() FROM ' || revoked;
    END LOOP;
  END IF;
END
$statekit$;

DO $statekit$
DECLARE
  root CONSTANT regclass := pg_catalog.to_regclass('"message"');
BEGIN
  IF root IS NULL THEN
    RAISE EXCEPTION USING ERRCODE = 'undefined_table', MESSAGE = 'There is no table ' || 'message',
      HINT = 'Name its schema where the search path (' || pg_catalog.current_setting('search_path')
        || ') does not lead there: schema=...';
  END IF;
  PERFORM 1 FROM pg_catalog.pg_trigger t WHERE t.tgrelid = root AND t.tgname = 'statekit_message_status_d0d43d01';
  IF NOT FOUND THEN
    RAISE EXCEPTION USING ERRCODE = 'undefined_object',
      MESSAGE = root::text || ' has no trigger statekit_message_status_d0d43d01, which was to get a new rule',
      HINT = 'Create it anew, with create_state_trigger.';
  END IF;
END
$statekit$;

DO $statekit$
DECLARE
  root CONSTANT regclass := pg_catalog.to_regclass('"message"');
  search_path CONSTANT text := pg_catalog.current_setting('search_path');
  about record;
  state text;
  stored text;
BEGIN
  IF root IS NULL THEN
    RAISE EXCEPTION USING ERRCODE = 'undefined_table', MESSAGE = 'There is no table ' || 'message',
      HINT = 'Name its schema where the search path (' || search_path || ') does not lead there: schema=...';
  END IF;
  PERFORM pg_catalog.set_config('search_path', 'pg_catalog', true);  -- as where the trigger is made
  SELECT a.atttypid, pg_catalog.format_type(a.atttypid, a.atttypmod) AS type, t.typtype,
         coalesce(l.collisdeterministic, true) AS is_deterministic
  INTO about
  FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
  LEFT JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation
  WHERE a.attrelid = root AND a.attname = 'status' AND a.attnum > 0 AND NOT a.attisdropped;
  IF NOT FOUND THEN
    RAISE EXCEPTION USING ERRCODE = 'undefined_column', MESSAGE = 'message' || ' has no column ' || 'status';
  END IF;
  IF NOT about.is_deterministic THEN
    RAISE EXCEPTION USING ERRCODE = 'feature_not_supported',
      MESSAGE = 'message' || '.status' || ' has a collation for which different texts are equal, so that its states cannot be told apart',
      HINT = 'Give the column a deterministic collation, such as "C".';
  END IF;
  FOR state IN SELECT pg_catalog.jsonb_array_elements_text('["READY", "SPAM_REVIEW", "PROMOTED", "COMPLETED", "ARCHIVED"]'::pg_catalog.jsonb) LOOP
    CONTINUE WHEN state IS NULL;
    IF about.typtype = 'e' THEN
      -- Not by a cast: a label that this very transaction has added must not be used in it.
      PERFORM 1 FROM pg_catalog.pg_enum e WHERE e.enumtypid = about.atttypid AND e.enumlabel = state;
      IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'feature_not_supported',
          MESSAGE = 'message' || '.status' || ' is of the enum type ' || about.type || ', which has no label '
            || pg_catalog.quote_literal(state),
          HINT = 'Add it before, in the same migration: ALTER TYPE ' || about.type || ' ADD VALUE IF NOT EXISTS '
            || pg_catalog.quote_literal(state) || ';';
      END IF;
      stored := state;
    ELSE
      BEGIN
        EXECUTE 'SELECT CAST(s.state AS pg_catalog.text) FROM (SELECT CAST(' || pg_catalog.quote_literal(state)
          || ' AS ' || about.type || ') AS state) s WHERE s.state IS NOT DISTINCT FROM s.state' INTO stored;
      EXCEPTION WHEN OTHERS THEN
        RAISE EXCEPTION USING ERRCODE = 'feature_not_supported',
          MESSAGE = 'message' || '.status' || ' is of the type ' || about.type || ', which cannot store the state '
            || pg_catalog.quote_literal(state) || ': ' || SQLERRM,
          HINT = 'Name the states as the database stores them, in a text, enum or integer column.';
      END;
    END IF;
    IF stored IS DISTINCT FROM state THEN
      RAISE EXCEPTION USING ERRCODE = 'feature_not_supported',
        MESSAGE = 'message' || '.status' || ' is of the type ' || about.type || ', which cannot store the state '
          || pg_catalog.quote_literal(state) || CASE WHEN stored IS NULL THEN '' ELSE ': it makes ' || pg_catalog.quote_literal(stored) || ' of it' END,
        HINT = 'Name the states as the database stores them, in a text, enum or integer column.';
    END IF;
  END LOOP;
  PERFORM pg_catalog.set_config('search_path', search_path, true);
END
$statekit$;

DO $statekit$
DECLARE
  about jsonb;
  counter text;
  thing text;
  grantee oid;
  owner CONSTANT oid := (SELECT p.proowner FROM pg_catalog.pg_proc p
                         WHERE p.oid = 'statekit.statekit_message_status_d0d43d01()'::pg_catalog.regprocedure);
  reader CONSTANT oid := (SELECT p.proowner FROM pg_catalog.pg_proc p
                          WHERE p.oid = 'statekit.counts_v1()'::pg_catalog.regprocedure);
BEGIN
  FOR counter, about IN SELECT key, value FROM pg_catalog.jsonb_each('{"statekit_message_status_d0d43d01_1ec078ff8ad2": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "READY", "target": "COMPLETED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_d3a3560b25de": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "READY", "target": "ARCHIVED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_84adf6da7da4": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "READY", "target": null, "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_f0752748d298": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "SPAM_REVIEW", "target": "READY", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_5a94eb190bda": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "SPAM_REVIEW", "target": "PROMOTED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_c0eeef962e17": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "SPAM_REVIEW", "target": "COMPLETED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_62af2716ceaa": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "SPAM_REVIEW", "target": "ARCHIVED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_aadeb9ea84d1": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "SPAM_REVIEW", "target": null, "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_f63b7e24a2a9": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "PROMOTED", "target": "READY", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_722d4d1fc9ea": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "PROMOTED", "target": "SPAM_REVIEW", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_02309f56d28d": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "PROMOTED", "target": "ARCHIVED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_4695cc0ec4de": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "PROMOTED", "target": null, "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_690bb9485486": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "COMPLETED", "target": "READY", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_9c4d2d4aad60": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "COMPLETED", "target": "SPAM_REVIEW", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_586d7820d7ef": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "COMPLETED", "target": "PROMOTED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_bc50a0fde7f5": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "COMPLETED", "target": null, "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_f78a112a85fc": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "ARCHIVED", "target": "READY", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_6ee4f14fe10e": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "ARCHIVED", "target": "SPAM_REVIEW", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_3f2599a14bb7": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "ARCHIVED", "target": "PROMOTED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_4aaf322f81f5": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "ARCHIVED", "target": "COMPLETED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_a678e2c1d1dc": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "ARCHIVED", "target": null, "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_4a931f94533d": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": null, "target": "READY", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_d0acc8bd4e46": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": null, "target": "SPAM_REVIEW", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_a956b685bedb": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": null, "target": "PROMOTED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_e2ec024ec6f3": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": null, "target": "COMPLETED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_248ae8b4fdca": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": null, "target": "ARCHIVED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_a3045523e41d": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": true, "source": null, "target": "SPAM_REVIEW", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_388db50524ad": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": true, "source": null, "target": "PROMOTED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_5c5ccc6f6e71": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": true, "source": null, "target": "COMPLETED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_dbf2013cfe4a": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": true, "source": null, "target": "ARCHIVED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_c51ed7b37514": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": true, "source": null, "target": null, "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_569c5b67ed79": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": true, "source": null, "target": "*", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_9a06fefb9085": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "*", "target": "*", "schema": null, "table": "message", "column": "status"}}') LOOP
    IF pg_catalog.to_regclass('statekit.' || counter) IS NULL THEN
      EXECUTE 'CREATE SEQUENCE statekit.' || counter;
    END IF;
    EXECUTE 'COMMENT ON SEQUENCE statekit.' || counter || ' IS ' || pg_catalog.quote_literal(about);
  END LOOP;
  -- A superuser may have replaced the function, which then still belongs to the role that made it, and counts as that.
  FOR counter IN
    SELECT c.relname FROM pg_catalog.pg_class c
    WHERE c.relnamespace = 'statekit'::pg_catalog.regnamespace AND c.relkind = 'S' AND c.relowner <> owner
      AND pg_catalog.starts_with(c.relname::text, 'statekit_message_status_d0d43d01_')
  LOOP
    EXECUTE 'ALTER SEQUENCE statekit.' || counter || ' OWNER TO ' || owner::pg_catalog.regrole::text;
  END LOOP;
  -- Whoever writes to the table asks the rule; only the trigger counts, whatever default privileges say.
  GRANT EXECUTE ON FUNCTION statekit.statekit_message_status_d0d43d01_legal(pg_catalog.text, pg_catalog.text) TO PUBLIC;
  GRANT EXECUTE ON FUNCTION statekit.statekit_message_status_d0d43d01_initial(pg_catalog.text) TO PUBLIC;
  REVOKE ALL ON FUNCTION statekit.statekit_message_status_d0d43d01() FROM PUBLIC;
  FOR thing, grantee IN
    SELECT 'SEQUENCE statekit.' || c.relname, g.grantee FROM pg_catalog.pg_class c
    CROSS JOIN LATERAL pg_catalog.aclexplode(c.relacl) g
    WHERE c.relnamespace = 'statekit'::pg_catalog.regnamespace AND pg_catalog.starts_with(c.relname::text, 'statekit_message_status_d0d43d01_') AND c.relkind = 'S'
      AND g.grantee <> c.relowner
    UNION
    SELECT 'FUNCTION statekit.statekit_message_status_d0d43d01()', g.grantee FROM pg_catalog.pg_proc p
    CROSS JOIN LATERAL pg_catalog.aclexplode(p.proacl) g
    WHERE p.oid = 'statekit.statekit_message_status_d0d43d01()'::pg_catalog.regprocedure AND g.grantee <> p.proowner
  LOOP
    EXECUTE 'REVOKE ALL ON ' || thing || ' FROM '
      || CASE WHEN grantee = 0 THEN 'PUBLIC' ELSE grantee::pg_catalog.regrole::text END;
  END LOOP;
  -- counts_v1() reads as its owner, who may be another role.
  IF reader <> owner THEN
    FOR counter IN SELECT pg_catalog.jsonb_object_keys('{"statekit_message_status_d0d43d01_1ec078ff8ad2": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "READY", "target": "COMPLETED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_d3a3560b25de": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "READY", "target": "ARCHIVED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_84adf6da7da4": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "READY", "target": null, "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_f0752748d298": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "SPAM_REVIEW", "target": "READY", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_5a94eb190bda": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "SPAM_REVIEW", "target": "PROMOTED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_c0eeef962e17": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "SPAM_REVIEW", "target": "COMPLETED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_62af2716ceaa": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "SPAM_REVIEW", "target": "ARCHIVED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_aadeb9ea84d1": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "SPAM_REVIEW", "target": null, "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_f63b7e24a2a9": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "PROMOTED", "target": "READY", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_722d4d1fc9ea": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "PROMOTED", "target": "SPAM_REVIEW", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_02309f56d28d": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "PROMOTED", "target": "ARCHIVED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_4695cc0ec4de": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "PROMOTED", "target": null, "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_690bb9485486": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "COMPLETED", "target": "READY", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_9c4d2d4aad60": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "COMPLETED", "target": "SPAM_REVIEW", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_586d7820d7ef": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "COMPLETED", "target": "PROMOTED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_bc50a0fde7f5": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "COMPLETED", "target": null, "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_f78a112a85fc": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "ARCHIVED", "target": "READY", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_6ee4f14fe10e": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "ARCHIVED", "target": "SPAM_REVIEW", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_3f2599a14bb7": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "ARCHIVED", "target": "PROMOTED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_4aaf322f81f5": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "ARCHIVED", "target": "COMPLETED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_a678e2c1d1dc": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "ARCHIVED", "target": null, "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_4a931f94533d": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": null, "target": "READY", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_d0acc8bd4e46": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": null, "target": "SPAM_REVIEW", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_a956b685bedb": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": null, "target": "PROMOTED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_e2ec024ec6f3": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": null, "target": "COMPLETED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_248ae8b4fdca": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": null, "target": "ARCHIVED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_a3045523e41d": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": true, "source": null, "target": "SPAM_REVIEW", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_388db50524ad": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": true, "source": null, "target": "PROMOTED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_5c5ccc6f6e71": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": true, "source": null, "target": "COMPLETED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_dbf2013cfe4a": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": true, "source": null, "target": "ARCHIVED", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_c51ed7b37514": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": true, "source": null, "target": null, "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_569c5b67ed79": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": true, "source": null, "target": "*", "schema": null, "table": "message", "column": "status"}, "statekit_message_status_d0d43d01_9a06fefb9085": {"trigger": "statekit_message_status_d0d43d01", "kind": "blocked", "new": false, "source": "*", "target": "*", "schema": null, "table": "message", "column": "status"}}') LOOP
      EXECUTE 'GRANT SELECT ON SEQUENCE statekit.' || counter || ' TO ' || reader::pg_catalog.regrole::text;
    END LOOP;
  END IF;
END
$statekit$;

CREATE OR REPLACE FUNCTION statekit.statekit_message_status_d0d43d01() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $statekit$
DECLARE
  mode CONSTANT text := 'raise';
  counters CONSTANT jsonb := '{"=READY": {"=COMPLETED": "1ec078ff8ad2", "=ARCHIVED": "d3a3560b25de", "-": "84adf6da7da4"}, "=SPAM_REVIEW": {"=READY": "f0752748d298", "=PROMOTED": "5a94eb190bda", "=COMPLETED": "c0eeef962e17", "=ARCHIVED": "62af2716ceaa", "-": "aadeb9ea84d1"}, "=PROMOTED": {"=READY": "f63b7e24a2a9", "=SPAM_REVIEW": "722d4d1fc9ea", "=ARCHIVED": "02309f56d28d", "-": "4695cc0ec4de"}, "=COMPLETED": {"=READY": "690bb9485486", "=SPAM_REVIEW": "9c4d2d4aad60", "=PROMOTED": "586d7820d7ef", "-": "bc50a0fde7f5"}, "=ARCHIVED": {"=READY": "f78a112a85fc", "=SPAM_REVIEW": "6ee4f14fe10e", "=PROMOTED": "3f2599a14bb7", "=COMPLETED": "4aaf322f81f5", "-": "a678e2c1d1dc"}, "-": {"=READY": "4a931f94533d", "=SPAM_REVIEW": "d0acc8bd4e46", "=PROMOTED": "a956b685bedb", "=COMPLETED": "e2ec024ec6f3", "=ARCHIVED": "248ae8b4fdca"}, "+": {"=SPAM_REVIEW": "a3045523e41d", "=PROMOTED": "388db50524ad", "=COMPLETED": "5c5ccc6f6e71", "=ARCHIVED": "dbf2013cfe4a", "-": "c51ed7b37514", "*": "569c5b67ed79"}, "*": "9a06fefb9085"}';
  allowed CONSTANT jsonb := '{"+": ["READY"], "=READY": ["SPAM_REVIEW", "PROMOTED"], "=PROMOTED": ["COMPLETED"], "=COMPLETED": ["ARCHIVED"]}';
  is_new bool := TG_OP = 'INSERT';
  source text;
  target text;
  row_found jsonb;
  key jsonb;
  counter regclass;
  label text;
  choices text;
BEGIN
  IF mode = 'observe' AND TG_WHEN = 'AFTER' AND NOT is_new
      AND (SELECT c.relispartition FROM pg_class c WHERE c.oid = TG_RELID) THEN
    RETURN NULL;  -- counted by the BEFORE trigger, which sees rows that change their partition as well
  END IF;
  IF TG_LEVEL = 'STATEMENT' THEN
    IF mode = 'observe' THEN
      PERFORM nextval(('statekit.statekit_message_status_d0d43d01_' || coalesce(counters -> '+' ->> coalesce('=' || r."status"::text, '-'),
                                               counters -> '+' ->> '*', counters ->> '*'))::regclass)
      FROM new_rows r WHERE statekit.statekit_message_status_d0d43d01_initial(r."status"::text) IS NOT TRUE;
      RETURN NULL;
    END IF;
    SELECT r."status"::text, to_jsonb(r) INTO target, row_found
    FROM new_rows r WHERE statekit.statekit_message_status_d0d43d01_initial(r."status"::text) IS NOT TRUE LIMIT 1;
    IF NOT FOUND THEN
      RETURN NULL;
    END IF;
  ELSIF is_new THEN
    target := NEW."status"::text;
    row_found := to_jsonb(NEW);
  ELSE
    source := OLD."status"::text;
    target := NEW."status"::text;
    row_found := to_jsonb(OLD);
  END IF;

  label := CASE WHEN is_new THEN '+' ELSE coalesce('=' || source, '-') END;
  counter := ('statekit.statekit_message_status_d0d43d01_' || coalesce(counters -> label ->> coalesce('=' || target, '-'),
                                      counters -> label ->> '*', counters ->> '*'))::regclass;
  IF mode = 'observe' OR (mode = 'skip' AND TG_WHEN = 'BEFORE') THEN
    PERFORM nextval(counter);  -- no lock: it would be held until the transaction ends
    IF mode = 'observe' THEN
      RETURN NEW;
    END IF;
    RETURN NULL;
  END IF;

  IF mode = 'skip' AND NOT is_new THEN
    PERFORM nextval(counter);  -- as above, where others count the same move at the same time
  ELSE
    BEGIN
      -- Not nextval: it writes 32 numbers ahead to the log, and after a crash the count would be too high by them. The
      -- lock ends with the error below.
      PERFORM pg_advisory_xact_lock(4005440869906548365);
      PERFORM setval(counter, coalesce(pg_sequence_last_value(counter), 0) + 1);
    EXCEPTION WHEN lock_not_available THEN  -- anybody may hold an advisory lock
      PERFORM nextval(counter);
    END;
  END IF;
  IF current_setting('server_version_num')::int >= 170000 THEN
    -- A transaction that is rolled back flushes nothing: without this, a crash would lose the count.
    PERFORM pg_logical_emit_message(false, 'statekit', '', true);
  END IF;

  SELECT jsonb_agg(jsonb_build_array(a.attname, row_found -> a.attname::text) ORDER BY k.position) INTO key
  FROM pg_index i
  CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, position)
  JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
  WHERE i.indrelid = TG_RELID AND i.indisprimary;
  SELECT string_agg(coalesce(c.state, 'NULL'), ', ' ORDER BY c.position) INTO choices
  FROM jsonb_array_elements_text(allowed -> label) WITH ORDINALITY AS c(state, position);
  choices := coalesce(choices, 'nothing');
  RAISE EXCEPTION USING
    ERRCODE = 'check_violation',
    MESSAGE = 'message' || coalesce((
        SELECT '(' || string_agg((k.part ->> 0) || '=' || coalesce(k.part ->> 1, 'NULL'), ', ' ORDER BY k.position) || ')'
        FROM jsonb_array_elements(key) WITH ORDINALITY AS k(part, position)), '') || '.status'
      || CASE WHEN is_new THEN ': a new row cannot start in ' ELSE ': cannot move from ' || coalesce(source, 'NULL') || ' to ' END
      || coalesce(target, 'NULL') || '.',
    DETAIL = jsonb_build_object('statekit', 1, 'trigger', 'statekit_message_status_d0d43d01', 'new', is_new, 'source', source,
                                'target', target, 'key', key, 'allowed', coalesce(allowed -> label, '[]'))::text,
    HINT = CASE WHEN is_new THEN 'Allowed: ' ELSE 'Allowed from ' || coalesce(source, 'NULL') || ': ' END || choices || '.',
    CONSTRAINT = 'statekit_message_status_d0d43d01',
    SCHEMA = TG_TABLE_SCHEMA,
    TABLE = TG_TABLE_NAME,
    COLUMN = 'status';
END
$statekit$;

CREATE OR REPLACE FUNCTION statekit.statekit_message_status_d0d43d01_initial(state pg_catalog.text) RETURNS pg_catalog.bool LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $statekit$
BEGIN
  RETURN '["READY"]'::pg_catalog.jsonb OPERATOR(pg_catalog.?) state;
END
$statekit$;

CREATE OR REPLACE FUNCTION statekit.statekit_message_status_d0d43d01_legal(source pg_catalog.text, target pg_catalog.text) RETURNS pg_catalog.bool LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $statekit$
BEGIN
  RETURN ('{"READY": ["SPAM_REVIEW", "PROMOTED"], "PROMOTED": ["COMPLETED"], "COMPLETED": ["ARCHIVED"]}'::pg_catalog.jsonb OPERATOR(pg_catalog.->) source) OPERATOR(pg_catalog.?) target;
END
$statekit$;

DO $statekit$
DECLARE
  root CONSTANT regclass := '"message"'::pg_catalog.regclass;
  before jsonb;
BEGIN
  SELECT pg_catalog.obj_description(t.oid, 'pg_trigger')::pg_catalog.jsonb INTO before
  FROM pg_catalog.pg_trigger t WHERE t.tgrelid = root AND t.tgname = 'statekit_message_status_d0d43d01';
  EXECUTE 'COMMENT ON TRIGGER statekit_message_status_d0d43d01 ON ' || root::text || ' IS ' || pg_catalog.quote_literal(
    '{"statekit": {"table": "message", "column": "status", "transitions": [["READY", "SPAM_REVIEW"], ["READY", "PROMOTED"], ["PROMOTED", "COMPLETED"], ["COMPLETED", "ARCHIVED"]], "initial": ["READY"], "schema": null, "on_illegal": "raise", "inline": false, "version": 1, "states": ["READY", "SPAM_REVIEW", "PROMOTED", "COMPLETED", "ARCHIVED"]}, "hash": "3ad4906858339059"}'::pg_catalog.jsonb || pg_catalog.jsonb_build_object('definitions', before -> 'definitions'));
END
$statekit$;

