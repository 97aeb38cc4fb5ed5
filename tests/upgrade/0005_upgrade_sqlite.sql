DROP TRIGGER IF EXISTS "statekit_message_status_d0d43d01";

DROP TRIGGER IF EXISTS "statekit_message_status_d0d43d01_new";

DROP TRIGGER IF EXISTS "zzz_statekit_message_status_d0d43d01";

