-- A ledger as version 3 of the schema wrote it, for sqlite.
CREATE TABLE aistack_accounts (
    user TEXT NOT NULL,
    queue TEXT NOT NULL,
    decayed DOUBLE NOT NULL,
    at DOUBLE NOT NULL,
    week INTEGER NOT NULL,
    week_seconds DOUBLE NOT NULL,
    PRIMARY KEY (user, queue)
);
CREATE TABLE aistack_events (
    sequence INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    at DOUBLE NOT NULL,
    request_id TEXT NOT NULL,
    lease_id TEXT NOT NULL,
    detail TEXT NOT NULL
);
CREATE TABLE aistack_leases (
    token INTEGER NOT NULL,
    id TEXT NOT NULL,
    request_id TEXT NOT NULL,
    spec TEXT NOT NULL,
    host TEXT NOT NULL,
    holder TEXT NOT NULL,
    slices TEXT NOT NULL,
    queue TEXT NOT NULL,
    state TEXT NOT NULL,
    granted_at DOUBLE NOT NULL,
    expires_at DOUBLE NOT NULL,
    ends_at DOUBLE,
    preemptible BOOLEAN NOT NULL,
    enforced_by TEXT,
    verified BOOLEAN,
    note TEXT NOT NULL,
    outcome TEXT,
    ended_at DOUBLE,
    due_at DOUBLE,
    active_at DOUBLE,
    notice TEXT,
    PRIMARY KEY (token),
    UNIQUE (id)
);
CREATE INDEX ix_aistack_leases_due_at ON aistack_leases (due_at);
CREATE TABLE aistack_meta (
    id INTEGER NOT NULL,
    schema_version INTEGER NOT NULL,
    version BIGINT NOT NULL,
    token BIGINT NOT NULL,
    PRIMARY KEY (id)
);
CREATE TABLE aistack_requests (
    id TEXT NOT NULL,
    spec TEXT NOT NULL,
    host TEXT NOT NULL,
    holder TEXT NOT NULL,
    queue TEXT NOT NULL,
    priority BIGINT NOT NULL,
    lease_seconds DOUBLE,
    patience_seconds DOUBLE,
    preemptible BOOLEAN NOT NULL,
    submitted_at DOUBLE NOT NULL,
    state TEXT NOT NULL,
    reason TEXT NOT NULL,
    lease_id TEXT NOT NULL,
    PRIMARY KEY (id)
);
CREATE INDEX ix_aistack_requests_state ON aistack_requests (state);
CREATE TABLE aistack_reservations (
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    host TEXT NOT NULL,
    queue TEXT NOT NULL,
    spec TEXT NOT NULL,
    count INTEGER NOT NULL,
    starts_at DOUBLE NOT NULL,
    ends_at DOUBLE NOT NULL,
    is_weekly BOOLEAN NOT NULL,
    created_by TEXT NOT NULL,
    PRIMARY KEY (id)
);
INSERT INTO aistack_accounts VALUES ('ann', 'default', 0.24999992838936427, 1.5, -1, 0.25);
INSERT INTO aistack_events VALUES (1, 'RequestQueued', 0.0, 'r-1', '', '');
INSERT INTO aistack_events VALUES (2, 'LeaseGranted', 0.0, 'r-1', 'l-9acdc284d8e849f1', '');
INSERT INTO aistack_events VALUES (3, 'LeaseActivated', 0.5, 'r-1', 'l-9acdc284d8e849f1', '');
INSERT INTO aistack_events VALUES (4, 'RequestQueued', 1.0, 'r-2', '', '');
INSERT INTO aistack_events VALUES (5, 'LeaseGranted', 1.0, 'r-2', 'l-6bd430b8038a4060', '');
INSERT INTO aistack_events VALUES (6, 'RequestQueued', 1.0, 'r-3', '', '');
INSERT INTO aistack_events VALUES (7, 'LeaseGranted', 1.0, 'r-3', 'l-9f32cf3dacf34b8c', '');
INSERT INTO aistack_events VALUES (8, 'LeaseFailed', 1.5, 'r-3', 'l-9f32cf3dacf34b8c', 'driver''s gone');
INSERT INTO aistack_events VALUES (9, 'RequestQueued', 2.0, 'r-4', '', '');
INSERT INTO aistack_events VALUES (10, 'ReservationMade', 2.5, '', '', 'course''s');
INSERT INTO aistack_leases VALUES (1, 'l-9acdc284d8e849f1', 'r-1', '1/2', 'box', '{"kind":"kernel","id":"k-1","user":"ann","host":"box","pid":42,"label":"work/tour''s.ipynb"}', '[{"device_id":"GPU-1","kind":"share","fraction":"1/2","memory_bytes":10737418240,"uuid":"GPU-1","profile":"","cores":[]}]', 'default', 'active', 0.0, 60.3, NULL, 0, 'L0', 1, '50 % of a GPU: äöü', NULL, NULL, 60.3, 2.0, NULL);
INSERT INTO aistack_leases VALUES (2, 'l-6bd430b8038a4060', 'r-2', '1/2', 'box', '{"kind":"kernel","id":"k-2","user":"ann","host":"box","pid":42,"label":"work/tour''s.ipynb"}', '[{"device_id":"GPU-1","kind":"share","fraction":"1/2","memory_bytes":10737418240,"uuid":"GPU-1","profile":"","cores":[]}]', 'default', 'granted', 1.0, 61.3, 30.0, 1, NULL, NULL, '', NULL, NULL, 30.0, NULL, '{"kind":"preempt","at":2.0,"ends_at":62.0,"request_id":"r-4"}');
INSERT INTO aistack_leases VALUES (3, 'l-9f32cf3dacf34b8c', 'r-3', '1/2', 'box', '{"kind":"kernel","id":"k-3","user":"ann","host":"box","pid":42,"label":"work/tour''s.ipynb"}', '[{"device_id":"GPU-1","kind":"share","fraction":"1/2","memory_bytes":10737418240,"uuid":"GPU-1","profile":"","cores":[]}]', 'default', 'ended', 1.0, 61.3, NULL, 0, NULL, NULL, 'driver''s gone', 'failed', 1.5, NULL, NULL, NULL);
INSERT INTO aistack_meta VALUES (1, 3, 10, 3);
INSERT INTO aistack_requests VALUES ('r-1', '1/2', 'box', '{"kind":"kernel","id":"k-1","user":"ann","host":"box","pid":42,"label":"work/tour''s.ipynb"}', 'default', 0, NULL, NULL, 0, 0.0, 'granted', '', 'l-9acdc284d8e849f1');
INSERT INTO aistack_requests VALUES ('r-2', '1/2', 'box', '{"kind":"kernel","id":"k-2","user":"ann","host":"box","pid":42,"label":"work/tour''s.ipynb"}', 'default', 0, 29.0, NULL, 1, 1.0, 'granted', '', 'l-6bd430b8038a4060');
INSERT INTO aistack_requests VALUES ('r-3', '1/2', 'box', '{"kind":"kernel","id":"k-3","user":"ann","host":"box","pid":42,"label":"work/tour''s.ipynb"}', 'default', 0, NULL, NULL, 0, 1.0, 'granted', '', 'l-9f32cf3dacf34b8c');
INSERT INTO aistack_requests VALUES ('r-4', '1/2', 'box', '{"kind":"kernel","id":"k-4","user":"ann","host":"box","pid":42,"label":"work/tour''s.ipynb"}', 'night', -3, NULL, 0.5, 0, 2.0, 'queued', '', '');
INSERT INTO aistack_reservations VALUES ('v-1', 'course''s', 'box', 'night', '1/4', 2, 100.0, 200.0, 1, 'ann');
