-- What this store is sure of is only what it asked for: CloudStack is the truth about volumes, the kernel about
-- devices, the live server about exports.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

CREATE TABLE operations (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    id          TEXT NOT NULL UNIQUE,
    kind        TEXT NOT NULL,
    status      TEXT NOT NULL CHECK (status IN ('queued', 'running', 'unwinding', 'succeeded', 'failed', 'cancelled',
                                                'stuck', 'abandoned')),
    step        TEXT NOT NULL,  -- the step's name in its story
    step_words  TEXT NOT NULL,  -- the same for people
    volume_id   TEXT,           -- none while a creation has not learned it
    volume_name TEXT,
    displaced_id TEXT,          -- another volume that it detaches, to make way for its own
    new_name    TEXT,           -- of a creation
    vm_id       TEXT,
    root_of     TEXT,           -- the VM whose root disk it puts in its place
    request_id  TEXT UNIQUE,    -- the caller's
    request     TEXT NOT NULL,  -- JSON: what was asked for; the same id with another request is a conflict
    asker       TEXT NOT NULL,  -- JSON: who, with which words, why
    story       TEXT NOT NULL,  -- JSON: all that was learned, saved whole
    outcome     TEXT,           -- JSON: once ended
    error       TEXT,           -- JSON
    unwinding   INTEGER NOT NULL DEFAULT 0,  -- which way a stuck one was going
    deadline    TEXT NOT NULL,  -- what has sent nothing by then never starts
    created_at  TEXT NOT NULL,
    updated_at  TEXT NOT NULL,
    finished_at TEXT
) STRICT;

-- One operation a volume, also across restarts. A queued one has not begun.
CREATE UNIQUE INDEX one_operation_a_volume ON operations (volume_id)
    WHERE status IN ('running', 'unwinding', 'stuck');

-- One creation a name: until CloudStack has answered, the name is all there is.
CREATE UNIQUE INDEX one_creation_a_name ON operations (new_name)
    WHERE status IN ('running', 'unwinding', 'stuck');

-- A VM has one place for a root disk: of two for it, the later changes nothing.
CREATE UNIQUE INDEX one_root_disk_a_vm ON operations (root_of)
    WHERE status IN ('running', 'unwinding', 'stuck');

CREATE INDEX unfinished_operations ON operations (status)
    WHERE status IN ('queued', 'running', 'unwinding', 'stuck');

-- Who stands in line for a volume, however much was done to it before.
CREATE INDEX unfinished_of_volume ON operations (volume_id, status)
    WHERE status IN ('queued', 'running', 'unwinding', 'stuck');

CREATE INDEX operations_of_volume ON operations (volume_id);

CREATE INDEX operations_displacing ON operations (displaced_id) WHERE displaced_id IS NOT NULL;

CREATE INDEX ended_operations ON operations (finished_at) WHERE finished_at IS NOT NULL;

-- What happened, for people; only the row of the operation decides. Append-only, and no number is used twice.
CREATE TABLE events (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    at          TEXT NOT NULL,
    kind        TEXT NOT NULL,
    volume_id   TEXT,
    volume_name TEXT,           -- as it was then
    serial      TEXT,           -- of a device, whose volume may not be known
    operation   TEXT REFERENCES operations (id) ON DELETE CASCADE,
    status      TEXT,           -- the operation's, then
    step_words  TEXT,           -- the operation's, then
    job_id      TEXT,
    text        TEXT
) STRICT;
CREATE INDEX events_of_operation ON events (operation) WHERE operation IS NOT NULL;
CREATE INDEX events_of_volume ON events (volume_id) WHERE volume_id IS NOT NULL;
CREATE INDEX events_of_device ON events (serial) WHERE serial IS NOT NULL;
CREATE INDEX events_of_no_operation ON events (at) WHERE operation IS NULL;

-- What CloudStack said last.
CREATE TABLE volumes (
    id       TEXT PRIMARY KEY,
    record   TEXT NOT NULL,     -- JSON
    position INTEGER NOT NULL,  -- in CloudStack's list
    as_of    TEXT NOT NULL
) STRICT;

-- Volumes that nobody may take away; a row goes when the volume is released.
CREATE TABLE holds (
    volume_id   TEXT PRIMARY KEY,
    volume_name TEXT NOT NULL,     -- when it was held
    holder      TEXT NOT NULL,     -- for people
    uid         INTEGER NOT NULL,  -- who logged in, behind a sudo say
    note        TEXT NOT NULL,
    since       TEXT NOT NULL
) STRICT;

-- The exports that are wished for; what is served is the live server's to say.
CREATE TABLE exports (
    name        TEXT PRIMARY KEY,
    volume_id   TEXT NOT NULL UNIQUE,
    read_only   INTEGER NOT NULL,
    shared      INTEGER NOT NULL,  -- several clients may write at a time
    access      TEXT NOT NULL,  -- JSON: who may open it
    device_path TEXT NOT NULL,
    identity    TEXT NOT NULL,  -- what the device must still be when it is served again
    failed      INTEGER NOT NULL DEFAULT 0,
    created_at  TEXT NOT NULL,
    -- What clients did with it, as of some seconds ago.
    bytes_read       INTEGER NOT NULL DEFAULT 0,
    bytes_written    INTEGER NOT NULL DEFAULT 0,
    last_client      TEXT,  -- its address
    last_client_at   TEXT,  -- when it was last known to be there
    last_client_left TEXT   -- how it left; of one that is there, what it would be if the daemon died
) STRICT;

-- How a volume was exported before its export was ended: how it is exported again when it is brought back.
CREATE TABLE former_exports (
    volume_id TEXT PRIMARY KEY,
    name      TEXT NOT NULL,
    read_only INTEGER NOT NULL,
    shared    INTEGER NOT NULL,
    access    TEXT NOT NULL  -- JSON: who could open it
) STRICT;

-- What was counted since the store was made; no value ever becomes smaller.
CREATE TABLE counters (
    name  TEXT NOT NULL,
    label TEXT NOT NULL,  -- which of its kind: a command, a kind and an outcome; '' where there is only one
    value INTEGER NOT NULL,
    PRIMARY KEY (name, label)
) STRICT, WITHOUT ROWID;

-- How long steps took: so many of at most `at_most_ms`, and of more than the next smaller bound.
CREATE TABLE step_times (
    kind       TEXT NOT NULL,
    step       TEXT NOT NULL,
    at_most_ms INTEGER NOT NULL,
    count      INTEGER NOT NULL,
    total_ms   INTEGER NOT NULL,
    PRIMARY KEY (kind, step, at_most_ms)
) STRICT, WITHOUT ROWID;

-- How long the last of each step took: what is usual here.
CREATE TABLE recent_step_times (
    seq  INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    step TEXT NOT NULL,
    ms   INTEGER NOT NULL
) STRICT;
CREATE INDEX recent_times_of_step ON recent_step_times (kind, step, seq);

-- Counted where it happens, in the same transaction: nothing that ends is forgotten, or counted twice.
CREATE TRIGGER count_ended AFTER UPDATE OF finished_at ON operations
WHEN OLD.finished_at IS NULL AND NEW.finished_at IS NOT NULL
BEGIN
    INSERT INTO counters (name, label, value) VALUES ('operations', NEW.kind || ' ' || NEW.status, 1)
    ON CONFLICT (name, label) DO UPDATE SET value = value + 1;
END;

CREATE TRIGGER remember_step_time AFTER UPDATE OF status, step ON operations
WHEN OLD.status = 'running' AND (NEW.step <> OLD.step OR NEW.status = 'succeeded') AND NEW.updated_at > OLD.updated_at
BEGIN
    INSERT INTO recent_step_times (kind, step, ms)
    VALUES (NEW.kind, OLD.step,
            CAST(round((julianday(NEW.updated_at) - julianday(OLD.updated_at)) * 86400000) AS INTEGER));
    DELETE FROM recent_step_times WHERE kind = NEW.kind AND step = OLD.step AND seq <=
        (SELECT seq FROM recent_step_times WHERE kind = NEW.kind AND step = OLD.step ORDER BY seq DESC LIMIT 1 OFFSET 32);
END;

CREATE TRIGGER time_step AFTER UPDATE OF status, step ON operations
WHEN OLD.status IN ('queued', 'running', 'unwinding')
BEGIN
    INSERT INTO step_times (kind, step, at_most_ms, count, total_ms)
    SELECT NEW.kind,
           CASE OLD.status WHEN 'queued' THEN 'queue' WHEN 'unwinding' THEN 'undo_' || OLD.step ELSE OLD.step END,
           CASE WHEN ms <= 100 THEN 100 WHEN ms <= 500 THEN 500 WHEN ms <= 1000 THEN 1000 WHEN ms <= 2500 THEN 2500
                WHEN ms <= 5000 THEN 5000 WHEN ms <= 10000 THEN 10000 WHEN ms <= 30000 THEN 30000
                WHEN ms <= 60000 THEN 60000 WHEN ms <= 300000 THEN 300000 WHEN ms <= 900000 THEN 900000
                WHEN ms <= 3600000 THEN 3600000 ELSE 9223372036854775807 END,
           1, ms
    -- A clock that was set back took no time.
    FROM (SELECT max(0, CAST(round((julianday(NEW.updated_at) - julianday(OLD.updated_at)) * 86400000) AS INTEGER)) AS ms)
    WHERE true
    ON CONFLICT (kind, step, at_most_ms) DO UPDATE SET count = count + 1, total_ms = total_ms + excluded.total_ms;
END;
