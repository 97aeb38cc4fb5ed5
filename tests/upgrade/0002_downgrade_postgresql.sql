DO $statekit$
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
        WHERE t.tgfoid = pg_catalog.to_regprocedure('statekit.statekit_message_status_d0d43d01()') AND t.tgparentid = 0
          AND (false OR n.nspname = ANY (pg_catalog.current_schemas(false)))
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
  PERFORM 1 FROM pg_catalog.pg_trigger t WHERE t.tgfoid = pg_catalog.to_regprocedure('statekit.statekit_message_status_d0d43d01()');
  IF NOT FOUND THEN
    FOR counter IN
      SELECT f.signature FROM (VALUES ('statekit_message_status_d0d43d01()'), ('statekit_message_status_d0d43d01_legal(text, text)'), ('statekit_message_status_d0d43d01_initial(text)')) f(signature)
      WHERE pg_catalog.to_regprocedure('statekit.' || f.signature) IS NOT NULL
    LOOP
      EXECUTE 'DROP FUNCTION statekit.' || counter;
    END LOOP;
    FOR counter IN
      SELECT c.relname FROM pg_catalog.pg_class c
      WHERE c.relnamespace = pg_catalog.to_regnamespace('statekit') AND c.relkind = 'S'
        AND pg_catalog.starts_with(c.relname::text, 'statekit_message_status_d0d43d01_')
    LOOP
      EXECUTE 'DROP SEQUENCE statekit.' || pg_catalog.quote_ident(counter);
    END LOOP;
  END IF;
END
$statekit$;

