-- Version 2 of the triggers for PostgreSQL: with the history of each row, and with a way past for the members of a role.
-- FROZEN as version 1 is, of which it uses the blocks that are not here.

-- block: is_member
pg_catalog.pg_has_role(CASE WHEN pg_catalog.current_setting('role') OPERATOR(pg_catalog.=) 'none' THEN session_user
                            ELSE pg_catalog.current_setting('role')::pg_catalog.name END,
                       (SELECT r.oid FROM pg_catalog.pg_roles r WHERE r.rolname OPERATOR(pg_catalog.=) {{role}}::pg_catalog.name),
                       'MEMBER') IS TRUE

-- block: override
  IF {{may}} THEN
    -- Once: by the BEFORE trigger where there is one, which sees rows that change their partition as well.
    IF TG_WHEN = 'BEFORE' OR is_new OR NOT (mode = 'skip' OR (SELECT c.relispartition FROM pg_class c WHERE c.oid = TG_RELID)) THEN
      INSERT INTO {{ledger}} (at, kind, table_name, model, attribute, source, target, is_new, number, actor, reason,
                              operation, place, identities, process, detail, batch, line)
      SELECT clock_timestamp(), 'overridden', {{title}}, {{title}}, {{column_literal}}, source, target, is_new, 1,
             nullif(current_setting('statekit.actor', true), ''), current_setting('statekit.reason', true),
             nullif(current_setting('statekit.operation', true), ''), nullif(current_setting('statekit.place', true), ''),
             (SELECT jsonb_build_array(jsonb_agg(row_found -> a.attname::text ORDER BY k.position))
              FROM pg_index i
              CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, position)
              JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
              WHERE i.indrelid = TG_RELID AND i.indisprimary),
             NULL, jsonb_build_object('by', 'trigger', 'role', session_user, 'backend', pg_backend_pid()),
             replace(gen_random_uuid()::text, '-', ''), 0;
      PERFORM set_config('statekit.{{name}}',
                         (coalesce(nullif(current_setting('statekit.{{name}}', true), ''), '0')::int8 + 1)::text, true);
    END IF;
    RETURN NEW;
  END IF;

-- block: override_new
    IF {{may}} THEN
      INSERT INTO {{ledger}} (at, kind, table_name, model, attribute, source, target, is_new, number, actor, reason,
                              operation, place, process, detail, batch, line)
      SELECT clock_timestamp(), 'overridden', {{title}}, {{title}}, {{column_literal}}, NULL, r.{{column}}::text, true, count(*),
             nullif(current_setting('statekit.actor', true), ''), current_setting('statekit.reason', true),
             nullif(current_setting('statekit.operation', true), ''), nullif(current_setting('statekit.place', true), ''),
             NULL, jsonb_build_object('by', 'trigger', 'role', session_user, 'backend', pg_backend_pid()),
             replace(gen_random_uuid()::text, '-', ''), 0
      FROM new_rows r WHERE statekit.{{name}}_initial(r.{{column}}::text) IS NOT TRUE GROUP BY r.{{column}}::text;
      PERFORM set_config('statekit.{{name}}',
                         (coalesce(nullif(current_setting('statekit.{{name}}', true), ''), '0')::int8
                          + (SELECT count(*) FROM new_rows r WHERE statekit.{{name}}_initial(r.{{column}}::text) IS NOT TRUE))::text,
                         true);
      RETURN NULL;
    END IF;

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
{{override_new}}    SELECT r.{{column}}::text, to_jsonb(r) INTO target, row_found
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

{{override}}  label := CASE WHEN is_new THEN '+' ELSE coalesce('=' || source, '-') END;
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

-- block: history
BEGIN
  -- Called for each row: so nothing is set for the call, as a search path would be, and every name is a full one.
  -- Whoever has written the row has said by settings what for; the role alone is certain.
  IF TG_OP OPERATOR(pg_catalog.=) 'UPDATE' THEN
    INSERT INTO {{history}} (at, table_name, column_name, key, kind, source, target, is_new, operation, actor, reason, place, role)
    VALUES (pg_catalog.clock_timestamp(), {{title}}, {{column_literal}}, {{key}}, {{kind_moved}},
            {{source}}, {{target}}, false, {{context}});
  ELSIF TG_LEVEL OPERATOR(pg_catalog.=) 'ROW' THEN
    INSERT INTO {{history}} (at, table_name, column_name, key, kind, source, target, is_new, operation, actor, reason, place, role)
    VALUES (pg_catalog.clock_timestamp(), {{title}}, {{column_literal}}, {{key}}, {{kind_new}},
            NULL, {{target}}, true, {{context}});
  ELSE
    INSERT INTO {{history}} (at, table_name, column_name, key, kind, source, target, is_new, operation, actor, reason, place, role)
    SELECT pg_catalog.clock_timestamp(), {{title}}, {{column_literal}}, {{key_of_r}}, {{kind_of_r}},
           NULL, r.{{column}}::pg_catalog.text, true, {{context}}
    FROM new_rows r;
    RETURN NULL;
  END IF;
  RETURN NEW;
END

-- block: privileges
DECLARE
  grantee oid;
BEGIN
  -- Whoever could call it would write the history.
  REVOKE ALL ON FUNCTION statekit.{{name}}_history() FROM PUBLIC;
  FOR grantee IN
    SELECT g.grantee FROM pg_catalog.pg_proc p CROSS JOIN LATERAL pg_catalog.aclexplode(p.proacl) g
    WHERE p.oid = 'statekit.{{name}}_history()'::pg_catalog.regprocedure AND g.grantee NOT IN (p.proowner, 0)
  LOOP
    EXECUTE 'REVOKE ALL ON FUNCTION statekit.{{name}}_history() FROM ' || grantee::pg_catalog.regrole::text;
  END LOOP;
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
  has_other bool;
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
      SELECT count(*) > 0 INTO has_other FROM pg_catalog.pg_trigger t
      WHERE t.tgrelid = root AND (
        NOT {{has_history}} AND t.tgname IN ('{{name}}_history', '{{name}}_history_new', 'zzz_{{name}}_history')
        OR t.tgname = CASE WHEN is_partitioned THEN '{{name}}_history' ELSE 'zzz_{{name}}_history' END
      );
      IF (has_before AND NOT needs_before) OR has_other THEN
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
    -- What is to be there for the history, and what was for an older declaration.
    FOREACH trigger_name IN ARRAY ARRAY['{{name}}_history', '{{name}}_history_new', 'zzz_{{name}}_history']::name[] LOOP
      CONTINUE WHEN {{has_history}} AND trigger_name = CASE WHEN is_partitioned THEN 'zzz_{{name}}_history' ELSE '{{name}}_history' END;
      CONTINUE WHEN {{has_history}} AND trigger_name = '{{name}}_history_new';
      IF EXISTS (SELECT 1 FROM pg_catalog.pg_trigger t WHERE t.tgrelid = relation AND t.tgname = trigger_name) THEN
        EXECUTE 'DROP TRIGGER ' || pg_catalog.quote_ident(trigger_name) || ' ON ' || relation::text;
      END IF;
    END LOOP;
    IF {{has_history}} THEN
      IF is_partitioned THEN
        -- Only this one sees a row that changes its partition.
        EXECUTE 'CREATE OR REPLACE TRIGGER zzz_{{name}}_history BEFORE UPDATE ON ' || relation::text
          || ' FOR EACH ROW WHEN (' || {{when_moved}} || ') EXECUTE FUNCTION statekit.{{name}}_history()';
      ELSE
        EXECUTE 'CREATE OR REPLACE TRIGGER {{name}}_history AFTER UPDATE ON ' || relation::text
          || ' FOR EACH ROW WHEN (' || {{when_moved}} || ') EXECUTE FUNCTION statekit.{{name}}_history()';
        EXECUTE 'CREATE OR REPLACE TRIGGER {{name}}_history_new AFTER INSERT ON ' || relation::text
          || ' FOR EACH ROW EXECUTE FUNCTION statekit.{{name}}_history()';
      END IF;
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
      IF {{has_history}} THEN
        EXECUTE 'CREATE OR REPLACE TRIGGER {{name}}_history_new AFTER INSERT ON ' || relation::text
          || ' REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION statekit.{{name}}_history()';
      ELSIF EXISTS (
        SELECT 1 FROM pg_catalog.pg_trigger t WHERE t.tgrelid = relation AND t.tgname = '{{name}}_history_new'
      ) THEN
        EXECUTE 'DROP TRIGGER {{name}}_history_new ON ' || relation::text;
      END IF;
    END LOOP;
  END IF;
  FOREACH trigger_name IN ARRAY was_always LOOP
    IF trigger_name IN ('{{name}}', '{{name}}_new', 'zzz_{{name}}', '{{name}}_history', '{{name}}_history_new', 'zzz_{{name}}_history') THEN
      EXECUTE 'ALTER TABLE ' || root::text || ' ENABLE ALWAYS TRIGGER ' || pg_catalog.quote_ident(trigger_name);
    END IF;
  END LOOP;

  -- How the triggers look when nobody has changed them by hand.
  SELECT pg_catalog.string_agg(pg_catalog.pg_get_triggerdef(t.oid), E'\n' ORDER BY t.tgname) INTO definitions
  FROM pg_catalog.pg_trigger t WHERE t.tgrelid = root AND t.tgname IN ('{{name}}', '{{name}}_new', 'zzz_{{name}}', '{{name}}_history', '{{name}}_history_new', 'zzz_{{name}}_history');
  EXECUTE 'COMMENT ON TRIGGER {{name}} ON ' || root::text || ' IS ' || pg_catalog.quote_literal(
    {{about}}::pg_catalog.jsonb || pg_catalog.jsonb_build_object('definitions', pg_catalog.md5(definitions)));
  PERFORM pg_catalog.set_config('search_path', search_path, true);
END

-- block: drop_history
DECLARE
  relation regclass;
  trigger_name name;
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
        WHERE t.tgfoid = pg_catalog.to_regprocedure('statekit.{{name}}_history()') AND t.tgparentid = 0
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
  PERFORM 1 FROM pg_catalog.pg_trigger t WHERE t.tgfoid = pg_catalog.to_regprocedure('statekit.{{name}}_history()');
  IF NOT FOUND AND pg_catalog.to_regprocedure('statekit.{{name}}_history()') IS NOT NULL THEN
    DROP FUNCTION statekit.{{name}}_history();
  END IF;
END
