-- Version 1 of the triggers for PostgreSQL 14 and later. FROZEN: migrations that were written with it give this SQL
-- for ever. What is to be different stands in a v2.sql. Names in double braces are filled in, quoted, by writer.py.

-- block: schema
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

-- block: legal
BEGIN
{{nulls}}  RETURN ({{rule}}::pg_catalog.jsonb OPERATOR(pg_catalog.->) source) OPERATOR(pg_catalog.?) target;
END

-- block: initial
BEGIN
{{nulls}}  RETURN {{rule}}::pg_catalog.jsonb OPERATOR(pg_catalog.?) state;
END

-- block: refuse
DECLARE
  mode CONSTANT text := {{mode}};
  counters CONSTANT jsonb := {{counters}};
  allowed CONSTANT jsonb := {{allowed}};
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
      PERFORM nextval(('statekit.{{name}}_' || coalesce(counters -> '+' ->> coalesce('=' || r.{{column}}::text, '-'),
                                               counters -> '+' ->> '*', counters ->> '*'))::regclass)
      FROM new_rows r WHERE statekit.{{name}}_initial(r.{{column}}::text) IS NOT TRUE;
      RETURN NULL;
    END IF;
    SELECT r.{{column}}::text, to_jsonb(r) INTO target, row_found
    FROM new_rows r WHERE statekit.{{name}}_initial(r.{{column}}::text) IS NOT TRUE LIMIT 1;
    IF NOT FOUND THEN
      RETURN NULL;
    END IF;
  ELSIF is_new THEN
    target := {{new_state}};
    row_found := to_jsonb(NEW);
  ELSE
    source := {{old_state}};
    target := {{new_state}};
    row_found := to_jsonb(OLD);
  END IF;

  label := CASE WHEN is_new THEN '+' ELSE coalesce('=' || source, '-') END;
  counter := ('statekit.{{name}}_' || coalesce(counters -> label ->> coalesce('=' || target, '-'),
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
      PERFORM pg_advisory_xact_lock({{lock}});
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
    MESSAGE = {{title}} || coalesce((
        SELECT '(' || string_agg((k.part ->> 0) || '=' || coalesce(k.part ->> 1, 'NULL'), ', ' ORDER BY k.position) || ')'
        FROM jsonb_array_elements(key) WITH ORDINALITY AS k(part, position)), '') || {{attribute}}
      || CASE WHEN is_new THEN ': a new row cannot start in ' ELSE ': cannot move from ' || coalesce(source, 'NULL') || ' to ' END
      || coalesce(target, 'NULL') || '.',
    DETAIL = jsonb_build_object('statekit', 1, 'trigger', {{name_literal}}, 'new', is_new, 'source', source,
                                'target', target, 'key', key, 'allowed', coalesce(allowed -> label, '[]'))::text,
    HINT = CASE WHEN is_new THEN 'Allowed: ' ELSE 'Allowed from ' || coalesce(source, 'NULL') || ': ' END || choices || '.',
    CONSTRAINT = {{name_literal}},
    SCHEMA = TG_TABLE_SCHEMA,
    TABLE = TG_TABLE_NAME,
    COLUMN = {{column_literal}};
END

-- block: counters
DECLARE
  about jsonb;
  counter text;
  thing text;
  grantee oid;
  owner CONSTANT oid := (SELECT p.proowner FROM pg_catalog.pg_proc p
                         WHERE p.oid = 'statekit.{{name}}()'::pg_catalog.regprocedure);
  reader CONSTANT oid := (SELECT p.proowner FROM pg_catalog.pg_proc p
                          WHERE p.oid = 'statekit.counts_v1()'::pg_catalog.regprocedure);
BEGIN
  FOR counter, about IN SELECT key, value FROM pg_catalog.jsonb_each({{sequences}}) LOOP
    IF pg_catalog.to_regclass('statekit.' || counter) IS NULL THEN
      EXECUTE 'CREATE SEQUENCE statekit.' || counter;
    END IF;
    EXECUTE 'COMMENT ON SEQUENCE statekit.' || counter || ' IS ' || pg_catalog.quote_literal(about);
  END LOOP;
  -- A superuser may have replaced the function, which then still belongs to the role that made it, and counts as that.
  FOR counter IN
    SELECT c.relname FROM pg_catalog.pg_class c
    WHERE c.relnamespace = 'statekit'::pg_catalog.regnamespace AND c.relkind = 'S' AND c.relowner <> owner
      AND pg_catalog.starts_with(c.relname::text, '{{name}}_')
  LOOP
    EXECUTE 'ALTER SEQUENCE statekit.' || counter || ' OWNER TO ' || owner::pg_catalog.regrole::text;
  END LOOP;
  -- Whoever writes to the table asks the rule; only the trigger counts, whatever default privileges say.
  GRANT EXECUTE ON FUNCTION statekit.{{name}}_legal(pg_catalog.text, pg_catalog.text) TO PUBLIC;
  GRANT EXECUTE ON FUNCTION statekit.{{name}}_initial(pg_catalog.text) TO PUBLIC;
  REVOKE ALL ON FUNCTION statekit.{{name}}() FROM PUBLIC;
  FOR thing, grantee IN
    SELECT 'SEQUENCE statekit.' || c.relname, g.grantee FROM pg_catalog.pg_class c
    CROSS JOIN LATERAL pg_catalog.aclexplode(c.relacl) g
    WHERE c.relnamespace = 'statekit'::pg_catalog.regnamespace AND pg_catalog.starts_with(c.relname::text, '{{name}}_') AND c.relkind = 'S'
      AND g.grantee <> c.relowner
    UNION
    SELECT 'FUNCTION statekit.{{name}}()', g.grantee FROM pg_catalog.pg_proc p
    CROSS JOIN LATERAL pg_catalog.aclexplode(p.proacl) g
    WHERE p.oid = 'statekit.{{name}}()'::pg_catalog.regprocedure AND g.grantee <> p.proowner
  LOOP
    EXECUTE 'REVOKE ALL ON ' || thing || ' FROM '
      || CASE WHEN grantee = 0 THEN 'PUBLIC' ELSE grantee::pg_catalog.regrole::text END;
  END LOOP;
  -- counts_v1() reads as its owner, who may be another role.
  IF reader <> owner THEN
    FOR counter IN SELECT pg_catalog.jsonb_object_keys({{sequences}}) LOOP
      EXECUTE 'GRANT SELECT ON SEQUENCE statekit.' || counter || ' TO ' || reader::pg_catalog.regrole::text;
    END LOOP;
  END IF;
END

-- block: triggers
DECLARE
  root CONSTANT regclass := {{table_literal}}::pg_catalog.regclass;
  -- Whoever writes to a table that this transaction has locked already waits as long: then it is better to fail soon.
  patience CONSTANT interval := CASE WHEN EXISTS (
    SELECT 1 FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_class c ON c.oid = l.relation
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE l.pid = pg_catalog.pg_backend_pid() AND l.granted AND l.locktype = 'relation'
      AND l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
      AND c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'statekit')
    ) THEN '10 seconds' ELSE '5 minutes' END;
  started CONSTANT timestamptz := pg_catalog.clock_timestamp();
  lock_timeout CONSTANT text := pg_catalog.current_setting('lock_timeout');
  search_path CONSTANT text := pg_catalog.current_setting('search_path');
  relation regclass;
  is_partitioned bool;
  needs_before bool;
  has_before bool;
  was_always name[];
  trigger_name name;
  waits_for text;
  definitions text;
BEGIN
  SELECT c.relkind = 'p' OR c.relispartition INTO is_partitioned
  FROM pg_catalog.pg_class c WHERE c.oid = root AND c.relkind IN ('r', 'p');
  IF NOT FOUND THEN
    RAISE EXCEPTION USING MESSAGE = {{title}} || ' is no table, so that it can have no state trigger';
  END IF;
  needs_before := is_partitioned OR {{mode}} = 'skip';
  -- No operator of anybody's own gets into the WHEN, where it would stay. Names of tables are written with the schema.
  PERFORM pg_catalog.set_config('search_path', 'pg_catalog', true);

  -- One lock for all that follows, as strong as the strongest. Whoever waits for it holds up every later writer: so
  -- never for longer than 100 ms, and then the others go first.
  LOOP
    BEGIN
      PERFORM pg_catalog.set_config('lock_timeout', '100ms', true);
      SELECT count(*) > 0 INTO has_before FROM pg_catalog.pg_trigger t
      WHERE t.tgrelid = root AND t.tgname = 'zzz_{{name}}';
      IF has_before AND NOT needs_before THEN
        EXECUTE 'LOCK TABLE ' || root::text || ' IN ACCESS EXCLUSIVE MODE';
      ELSE
        EXECUTE 'LOCK TABLE ' || root::text || ' IN SHARE ROW EXCLUSIVE MODE';
      END IF;
      EXIT;
    EXCEPTION WHEN lock_not_available THEN
      IF pg_catalog.clock_timestamp() > started + patience THEN
        SELECT pg_catalog.string_agg(DISTINCT l.pid::text, ', ') INTO waits_for FROM pg_catalog.pg_locks l
        WHERE l.relation = root AND l.granted AND l.mode <> 'AccessShareLock' AND l.pid <> pg_catalog.pg_backend_pid();
        RAISE EXCEPTION USING ERRCODE = 'lock_not_available',
          MESSAGE = 'No lock on ' || root::text || ' for ' || patience::text || ': others are writing to it all the time',
          HINT = 'Nothing was changed. Processes that hold it now: ' || coalesce(waits_for, 'none')
            || '. End long transactions, and migrate again; tables that are written to all the time are best migrated'
            || ' one by one, each in a transaction of its own.';
      END IF;
      PERFORM pg_catalog.pg_sleep(0.05 + 0.1 * pg_catalog.random());
    END;
  END LOOP;
  PERFORM pg_catalog.set_config('lock_timeout', lock_timeout, true);

  SELECT coalesce(pg_catalog.array_agg(DISTINCT t.tgname), '{}') INTO was_always
  FROM pg_catalog.pg_trigger t WHERE t.tgrelid = root AND t.tgenabled = 'A';

  -- Children by INHERITS have no triggers of their parent's, partitions have its row triggers.
  FOR relation IN
    WITH RECURSIVE family(oid) AS (
      SELECT root::oid
      UNION
      SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN family f ON i.inhparent = f.oid WHERE NOT is_partitioned
    )
    SELECT oid FROM family
  LOOP
    EXECUTE 'CREATE OR REPLACE TRIGGER {{name}} AFTER UPDATE ON ' || relation::text
      || ' FOR EACH ROW WHEN (' || {{when_update}} || ') EXECUTE FUNCTION statekit.{{name}}()';
    IF needs_before THEN
      EXECUTE 'CREATE OR REPLACE TRIGGER zzz_{{name}} BEFORE UPDATE ON ' || relation::text
        || ' FOR EACH ROW WHEN (' || {{when_update}} || ') EXECUTE FUNCTION statekit.{{name}}()';
    ELSIF EXISTS (SELECT 1 FROM pg_catalog.pg_trigger t WHERE t.tgrelid = relation AND t.tgname = 'zzz_{{name}}') THEN
      EXECUTE 'DROP TRIGGER zzz_{{name}} ON ' || relation::text;
    END IF;
    IF NOT is_partitioned THEN
      EXECUTE 'CREATE OR REPLACE TRIGGER {{name}}_new AFTER INSERT ON ' || relation::text
        || ' FOR EACH ROW WHEN (' || {{when_insert}} || ') EXECUTE FUNCTION statekit.{{name}}()';
    END IF;
  END LOOP;
  IF is_partitioned THEN
    -- A row that changes its partition arrives there as a new one, for row triggers; not for those of statements.
    FOR relation IN
      SELECT p.relid FROM pg_catalog.pg_partition_tree(root) p JOIN pg_catalog.pg_class c ON c.oid = p.relid
      WHERE c.relkind IN ('r', 'p')
    LOOP
      EXECUTE 'CREATE OR REPLACE TRIGGER {{name}}_new AFTER INSERT ON ' || relation::text
        || ' REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION statekit.{{name}}()';
    END LOOP;
  END IF;
  FOREACH trigger_name IN ARRAY was_always LOOP
    IF trigger_name IN ('{{name}}', '{{name}}_new', 'zzz_{{name}}') THEN
      EXECUTE 'ALTER TABLE ' || root::text || ' ENABLE ALWAYS TRIGGER ' || pg_catalog.quote_ident(trigger_name);
    END IF;
  END LOOP;

  -- How the triggers look when nobody has changed them by hand.
  SELECT pg_catalog.string_agg(pg_catalog.pg_get_triggerdef(t.oid), E'\n' ORDER BY t.tgname) INTO definitions
  FROM pg_catalog.pg_trigger t WHERE t.tgrelid = root AND t.tgname IN ('{{name}}', '{{name}}_new', 'zzz_{{name}}');
  EXECUTE 'COMMENT ON TRIGGER {{name}} ON ' || root::text || ' IS ' || pg_catalog.quote_literal(
    {{about}}::pg_catalog.jsonb || pg_catalog.jsonb_build_object('definitions', pg_catalog.md5(definitions)));
  PERFORM pg_catalog.set_config('search_path', search_path, true);
END

-- block: types
DECLARE
  root CONSTANT regclass := pg_catalog.to_regclass({{table_literal}});
  search_path CONSTANT text := pg_catalog.current_setting('search_path');
  about record;
  state text;
  stored text;
BEGIN
  IF root IS NULL THEN
    RAISE EXCEPTION USING ERRCODE = 'undefined_table', MESSAGE = 'There is no table ' || {{title}},
      HINT = 'Name its schema where the search path (' || search_path || ') does not lead there: schema=...';
  END IF;
  PERFORM pg_catalog.set_config('search_path', 'pg_catalog', true);  -- as where the trigger is made
  SELECT a.atttypid, pg_catalog.format_type(a.atttypid, a.atttypmod) AS type, t.typtype,
         coalesce(l.collisdeterministic, true) AS is_deterministic
  INTO about
  FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
  LEFT JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation
  WHERE a.attrelid = root AND a.attname = {{column_literal}} AND a.attnum > 0 AND NOT a.attisdropped;
  IF NOT FOUND THEN
    RAISE EXCEPTION USING ERRCODE = 'undefined_column', MESSAGE = {{title}} || ' has no column ' || {{column_literal}};
  END IF;
  IF NOT about.is_deterministic THEN
    RAISE EXCEPTION USING ERRCODE = 'feature_not_supported',
      MESSAGE = {{title}} || {{attribute}} || ' has a collation for which different texts are equal, so that its states cannot be told apart',
      HINT = 'Give the column a deterministic collation, such as "C".';
  END IF;
  FOR state IN SELECT pg_catalog.jsonb_array_elements_text({{states}}) LOOP
    CONTINUE WHEN state IS NULL;
    IF about.typtype = 'e' THEN
      -- Not by a cast: a label that this very transaction has added must not be used in it.
      PERFORM 1 FROM pg_catalog.pg_enum e WHERE e.enumtypid = about.atttypid AND e.enumlabel = state;
      IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'feature_not_supported',
          MESSAGE = {{title}} || {{attribute}} || ' is of the enum type ' || about.type || ', which has no label '
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
          MESSAGE = {{title}} || {{attribute}} || ' is of the type ' || about.type || ', which cannot store the state '
            || pg_catalog.quote_literal(state) || ': ' || SQLERRM,
          HINT = 'Name the states as the database stores them, in a text, enum or integer column.';
      END;
    END IF;
    IF stored IS DISTINCT FROM state THEN
      RAISE EXCEPTION USING ERRCODE = 'feature_not_supported',
        MESSAGE = {{title}} || {{attribute}} || ' is of the type ' || about.type || ', which cannot store the state '
          || pg_catalog.quote_literal(state) || CASE WHEN stored IS NULL THEN '' ELSE ': it makes ' || pg_catalog.quote_literal(stored) || ' of it' END,
        HINT = 'Name the states as the database stores them, in a text, enum or integer column.';
    END IF;
  END LOOP;
  PERFORM pg_catalog.set_config('search_path', search_path, true);
END

-- block: present
DECLARE
  root CONSTANT regclass := pg_catalog.to_regclass({{table_literal}});
BEGIN
  IF root IS NULL THEN
    RAISE EXCEPTION USING ERRCODE = 'undefined_table', MESSAGE = 'There is no table ' || {{title}},
      HINT = 'Name its schema where the search path (' || pg_catalog.current_setting('search_path')
        || ') does not lead there: schema=...';
  END IF;
  PERFORM 1 FROM pg_catalog.pg_trigger t WHERE t.tgrelid = root AND t.tgname = '{{name}}';
  IF NOT FOUND THEN
    RAISE EXCEPTION USING ERRCODE = 'undefined_object',
      MESSAGE = root::text || ' has no trigger {{name}}, which was to get a new rule',
      HINT = 'Create it anew, with create_state_trigger.';
  END IF;
END

-- block: comment
DECLARE
  root CONSTANT regclass := {{table_literal}}::pg_catalog.regclass;
  before jsonb;
BEGIN
  SELECT pg_catalog.obj_description(t.oid, 'pg_trigger')::pg_catalog.jsonb INTO before
  FROM pg_catalog.pg_trigger t WHERE t.tgrelid = root AND t.tgname = '{{name}}';
  EXECUTE 'COMMENT ON TRIGGER {{name}} ON ' || root::text || ' IS ' || pg_catalog.quote_literal(
    {{about}}::pg_catalog.jsonb || pg_catalog.jsonb_build_object('definitions', before -> 'definitions'));
END

-- block: drop
DECLARE
  relation regclass;
  trigger_name name;
  counter text;
  -- Whoever writes to a table that this transaction has locked already waits as long: then it is better to fail soon.
  patience CONSTANT interval := CASE WHEN EXISTS (
    SELECT 1 FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_class c ON c.oid = l.relation
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE l.pid = pg_catalog.pg_backend_pid() AND l.granted AND l.locktype = 'relation'
      AND l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
      AND c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'statekit')
    ) THEN '10 seconds' ELSE '5 minutes' END;
  started CONSTANT timestamptz := pg_catalog.clock_timestamp();
  lock_timeout CONSTANT text := pg_catalog.current_setting('lock_timeout');
BEGIN
  PERFORM pg_catalog.pg_advisory_xact_lock(7165918366131643745);
  -- Wherever they are by now: the table may have another name, a partition may be detached. Where the migration names
  -- no schema, tables of that name outside of the search path are somebody else's.
  LOOP
    BEGIN
      PERFORM pg_catalog.set_config('lock_timeout', '100ms', true);
      FOR relation, trigger_name IN
        SELECT t.tgrelid, t.tgname FROM pg_catalog.pg_trigger t
        JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE t.tgfoid = pg_catalog.to_regprocedure('statekit.{{name}}()') AND t.tgparentid = 0
          AND ({{has_schema}} OR n.nspname = ANY (pg_catalog.current_schemas(false)))
        ORDER BY t.tgrelid
      LOOP
        EXECUTE 'DROP TRIGGER ' || pg_catalog.quote_ident(trigger_name) || ' ON ' || relation::text;
      END LOOP;
      EXIT;
    EXCEPTION WHEN lock_not_available THEN
      IF pg_catalog.clock_timestamp() > started + patience THEN
        RAISE;
      END IF;
      PERFORM pg_catalog.pg_sleep(0.05 + 0.1 * pg_catalog.random());
    END;
  END LOOP;
  PERFORM pg_catalog.set_config('lock_timeout', lock_timeout, true);
  -- A table of the same name in another schema shares what follows: the last one takes it along.
  PERFORM 1 FROM pg_catalog.pg_trigger t WHERE t.tgfoid = pg_catalog.to_regprocedure('statekit.{{name}}()');
  IF NOT FOUND THEN
    FOR counter IN
      SELECT f.signature FROM (VALUES ('{{name}}()'), ('{{name}}_legal(text, text)'), ('{{name}}_initial(text)')) f(signature)
      WHERE pg_catalog.to_regprocedure('statekit.' || f.signature) IS NOT NULL
    LOOP
      EXECUTE 'DROP FUNCTION statekit.' || counter;
    END LOOP;
    FOR counter IN
      SELECT c.relname FROM pg_catalog.pg_class c
      WHERE c.relnamespace = pg_catalog.to_regnamespace('statekit') AND c.relkind = 'S'
        AND pg_catalog.starts_with(c.relname::text, '{{name}}_')
    LOOP
      EXECUTE 'DROP SEQUENCE statekit.' || pg_catalog.quote_ident(counter);
    END LOOP;
  END IF;
END
