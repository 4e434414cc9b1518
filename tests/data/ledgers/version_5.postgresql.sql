-- A ledger as version 5 of the schema wrote it, for postgresql.
CREATE TABLE aistack_accounts (
    "user" TEXT NOT NULL,
    queue TEXT NOT NULL,
    decayed DOUBLE PRECISION NOT NULL,
    at DOUBLE PRECISION NOT NULL,
    week INTEGER NOT NULL,
    week_seconds DOUBLE PRECISION NOT NULL,
    PRIMARY KEY ("user", queue)
);
CREATE TABLE aistack_cells (
    host TEXT NOT NULL,
    owner TEXT NOT NULL,
    cell TEXT NOT NULL,
    began_at DOUBLE PRECISION NOT NULL,
    ended_at DOUBLE PRECISION,
    PRIMARY KEY (host, owner, cell, began_at)
);
CREATE TABLE aistack_charges (
    host TEXT NOT NULL,
    device_id TEXT NOT NULL,
    lease_id TEXT NOT NULL,
    cell TEXT NOT NULL,
    day BIGINT NOT NULL,
    "user" TEXT NOT NULL,
    queue TEXT NOT NULL,
    owner TEXT NOT NULL,
    label TEXT NOT NULL,
    spec TEXT NOT NULL,
    kind TEXT NOT NULL,
    seconds DOUBLE PRECISION NOT NULL,
    share_seconds DOUBLE PRECISION NOT NULL,
    millijoules BIGINT NOT NULL,
    metered_seconds DOUBLE PRECISION NOT NULL,
    busy_seconds DOUBLE PRECISION NOT NULL,
    levels TEXT NOT NULL,
    byte_seconds DOUBLE PRECISION NOT NULL,
    memory_seconds DOUBLE PRECISION NOT NULL,
    peak_bytes BIGINT,
    PRIMARY KEY (host, device_id, lease_id, cell, day)
);
CREATE INDEX ix_aistack_charges_day ON aistack_charges (day);
CREATE INDEX ix_aistack_charges_label ON aistack_charges (label);
CREATE INDEX ix_aistack_charges_owner ON aistack_charges (owner);
CREATE TABLE aistack_events (
    sequence BIGSERIAL NOT NULL,
    kind TEXT NOT NULL,
    at DOUBLE PRECISION NOT NULL,
    request_id TEXT NOT NULL,
    lease_id TEXT NOT NULL,
    detail TEXT NOT NULL,
    PRIMARY KEY (sequence)
);
CREATE TABLE aistack_leases (
    token BIGINT NOT NULL,
    id TEXT NOT NULL,
    request_id TEXT NOT NULL,
    spec TEXT NOT NULL,
    host TEXT NOT NULL,
    holder TEXT NOT NULL,
    slices TEXT NOT NULL,
    queue TEXT NOT NULL,
    state TEXT NOT NULL,
    granted_at DOUBLE PRECISION NOT NULL,
    expires_at DOUBLE PRECISION NOT NULL,
    ends_at DOUBLE PRECISION,
    preemptible BOOLEAN NOT NULL,
    enforced_by TEXT,
    verified BOOLEAN,
    note TEXT NOT NULL,
    outcome TEXT,
    ended_at DOUBLE PRECISION,
    due_at DOUBLE PRECISION,
    active_at DOUBLE PRECISION,
    notice TEXT,
    residence TEXT,
    PRIMARY KEY (token),
    UNIQUE (id)
);
CREATE INDEX ix_aistack_leases_due_at ON aistack_leases (due_at);
CREATE TABLE aistack_meta (
    id SERIAL NOT NULL,
    schema_version INTEGER NOT NULL,
    version BIGINT NOT NULL,
    token BIGINT NOT NULL,
    PRIMARY KEY (id)
);
CREATE TABLE aistack_meters (
    host TEXT NOT NULL,
    device_id TEXT NOT NULL,
    at DOUBLE PRECISION NOT NULL,
    millijoules BIGINT,
    idle_watts DOUBLE PRECISION,
    is_idle_seen BOOLEAN NOT NULL,
    writer TEXT NOT NULL,
    PRIMARY KEY (host, device_id)
);
CREATE TABLE aistack_requests (
    id TEXT NOT NULL,
    spec TEXT NOT NULL,
    host TEXT NOT NULL,
    holder TEXT NOT NULL,
    queue TEXT NOT NULL,
    priority BIGINT NOT NULL,
    lease_seconds DOUBLE PRECISION,
    patience_seconds DOUBLE PRECISION,
    preemptible BOOLEAN NOT NULL,
    submitted_at DOUBLE PRECISION NOT NULL,
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
    starts_at DOUBLE PRECISION NOT NULL,
    ends_at DOUBLE PRECISION NOT NULL,
    is_weekly BOOLEAN NOT NULL,
    created_by TEXT NOT NULL,
    PRIMARY KEY (id)
);
INSERT INTO aistack_accounts VALUES ('ann', 'default', 0.24999992838936427, 1.5, -1, 0.25);
INSERT INTO aistack_events VALUES (1, 'RequestQueued', 0.0, 'r-1', '', '');
INSERT INTO aistack_events VALUES (2, 'LeaseGranted', 0.5, 'r-1', 'l-0035e33318ca467f', '');
INSERT INTO aistack_events VALUES (3, 'LeaseActivated', 1.0, 'r-1', 'l-0035e33318ca467f', '');
INSERT INTO aistack_events VALUES (4, 'RequestQueued', 0.0, 'r-2', '', '');
INSERT INTO aistack_events VALUES (5, 'LeaseGranted', 0.5, 'r-2', 'l-90db012ca29f45b7', '');
INSERT INTO aistack_events VALUES (6, 'LeaseActivated', 1.0, 'r-2', 'l-90db012ca29f45b7', '');
INSERT INTO aistack_events VALUES (7, 'RequestQueued', 0.0, 'r-3', '', '');
INSERT INTO aistack_events VALUES (8, 'LeaseGranted', 0.5, 'r-3', 'l-c4fddd7ac1ef4bc7', '');
INSERT INTO aistack_events VALUES (9, 'LeaseActivated', 1.0, 'r-3', 'l-c4fddd7ac1ef4bc7', '');
INSERT INTO aistack_events VALUES (10, 'RequestQueued', 0.0, 'r-4', '', '');
INSERT INTO aistack_events VALUES (11, 'LeaseGranted', 0.5, 'r-4', 'l-16bd7e4a3b654d8d', '');
INSERT INTO aistack_events VALUES (12, 'LeaseActivated', 1.0, 'r-4', 'l-16bd7e4a3b654d8d', '');
INSERT INTO aistack_events VALUES (13, 'RequestQueued', 0.0, 'r-5', '', '');
INSERT INTO aistack_events VALUES (14, 'LeaseGranted', 0.5, 'r-5', 'l-82dda8c2d4da4ae4', '');
INSERT INTO aistack_events VALUES (15, 'LeaseActivated', 1.0, 'r-5', 'l-82dda8c2d4da4ae4', '');
INSERT INTO aistack_events VALUES (16, 'RequestQueued', 0.0, 'r-6', '', '');
INSERT INTO aistack_events VALUES (17, 'LeaseGranted', 0.5, 'r-6', 'l-de19e46dde6f41d3', '');
INSERT INTO aistack_events VALUES (18, 'LeaseActivated', 1.0, 'r-6', 'l-de19e46dde6f41d3', '');
INSERT INTO aistack_events VALUES (19, 'RequestQueued', 0.0, 'r-7', '', '');
INSERT INTO aistack_events VALUES (20, 'LeaseGranted', 0.5, 'r-7', 'l-69830724ec774849', '');
INSERT INTO aistack_events VALUES (21, 'LeaseActivated', 1.0, 'r-7', 'l-69830724ec774849', '');
INSERT INTO aistack_events VALUES (22, 'RequestQueued', 0.0, 'r-8', '', '');
INSERT INTO aistack_events VALUES (23, 'LeaseGranted', 0.5, 'r-8', 'l-c00f7dfbbece48aa', '');
INSERT INTO aistack_events VALUES (24, 'LeaseActivated', 1.0, 'r-8', 'l-c00f7dfbbece48aa', '');
INSERT INTO aistack_events VALUES (25, 'RequestQueued', 0.0, 'r-9', '', '');
INSERT INTO aistack_events VALUES (26, 'LeaseGranted', 0.5, 'r-9', 'l-4a522beacd014298', '');
INSERT INTO aistack_events VALUES (27, 'LeaseActivated', 1.0, 'r-9', 'l-4a522beacd014298', '');
INSERT INTO aistack_events VALUES (28, 'RequestQueued', 0.0, 'r-10', '', '');
INSERT INTO aistack_events VALUES (29, 'LeaseGranted', 0.5, 'r-10', 'l-fef12027d28d48c9', '');
INSERT INTO aistack_events VALUES (30, 'LeaseActivated', 1.0, 'r-10', 'l-fef12027d28d48c9', '');
INSERT INTO aistack_events VALUES (31, 'RequestQueued', 0.0, 'r-11', '', '');
INSERT INTO aistack_events VALUES (32, 'LeaseGranted', 1.0, 'r-11', 'l-3ce310b9b4904e87', '');
INSERT INTO aistack_events VALUES (33, 'LeaseFailed', 1.5, 'r-11', 'l-3ce310b9b4904e87', 'the daemon isn''t there: it did not start');
INSERT INTO aistack_events VALUES (34, 'RequestQueued', 0.0, 'r-12', '', '');
INSERT INTO aistack_events VALUES (35, 'RequestRejected', 2.0, 'r-12', '', 'waits for 1/2; it was not to wait any longer');
INSERT INTO aistack_events VALUES (36, 'RequestQueued', 0.0, 'r-13', '', '');
INSERT INTO aistack_events VALUES (37, 'RequestRejected', 2.0, 'r-13', '', 'its process has ended');
INSERT INTO aistack_events VALUES (38, 'RequestQueued', 2.0, 'r-14', '', '');
INSERT INTO aistack_events VALUES (39, 'RequestQueued', 2.0, 'r-15', '', '');
INSERT INTO aistack_events VALUES (40, 'RequestCancelled', 2.0, 'r-15', '', 'taken back');
INSERT INTO aistack_leases VALUES (1, 'l-0035e33318ca467f', 'r-1', '1/2', 'box', '{"kind":"kernel","id":"k-r-1","user":"ann","host":"box","pid":42,"label":"work/tour.ipynb"}', '[{"device_id":"GPU-1","kind":"share","fraction":"1/2","memory_bytes":10737418240,"uuid":"GPU-1","profile":"","cores":[],"gpu_slices":0,"compute_slices":0}]', 'default', 'active', 0.5, 60.0, NULL, false, NULL, true, 'lent until the reservation ''äöü'' begins', NULL, NULL, 60.0, NULL, NULL, NULL);
INSERT INTO aistack_leases VALUES (2, 'l-90db012ca29f45b7', 'r-2', '1/2', 'box', '{"kind":"kernel","id":"k-r-2","user":"ann","host":"box","pid":42,"label":"work/tour.ipynb"}', '[{"device_id":"GPU-1","kind":"share","fraction":"1/2","memory_bytes":10737418240,"uuid":"GPU-1","profile":"","cores":[],"gpu_slices":0,"compute_slices":0}]', 'default', 'active', 0.5, 60.0, NULL, false, NULL, true, 'on a GPU that failed: python 7 of tour.ipynb caused it; restart the kernel', NULL, NULL, 60.0, NULL, NULL, NULL);
INSERT INTO aistack_leases VALUES (3, 'l-c4fddd7ac1ef4bc7', 'r-3', '1/2', 'box', '{"kind":"kernel","id":"k-r-3","user":"ann","host":"box","pid":42,"label":"work/tour.ipynb"}', '[{"device_id":"GPU-1","kind":"share","fraction":"1/2","memory_bytes":10737418240,"uuid":"GPU-1","profile":"","cores":[],"gpu_slices":0,"compute_slices":0}]', 'default', 'active', 0.5, 60.0, NULL, false, NULL, true, 'over its memory: python 7 of tour.ipynb holds 42.0 GiB of 40.0 GiB', NULL, NULL, 60.0, NULL, NULL, NULL);
INSERT INTO aistack_leases VALUES (4, 'l-16bd7e4a3b654d8d', 'r-4', '1/2', 'box', '{"kind":"kernel","id":"k-r-4","user":"ann","host":"box","pid":42,"label":"work/tour.ipynb"}', '[{"device_id":"GPU-1","kind":"share","fraction":"1/2","memory_bytes":10737418240,"uuid":"GPU-1","profile":"","cores":[],"gpu_slices":0,"compute_slices":0}]', 'default', 'active', 0.5, 60.0, NULL, false, NULL, true, 'not enforced: the process sees devices GPU-1, GPU-2 instead of GPU-1', NULL, NULL, 60.0, NULL, NULL, NULL);
INSERT INTO aistack_leases VALUES (5, 'l-82dda8c2d4da4ae4', 'r-5', '1/2', 'box', '{"kind":"kernel","id":"k-r-5","user":"ann","host":"box","pid":42,"label":"work/tour.ipynb"}', '[{"device_id":"GPU-1","kind":"share","fraction":"1/2","memory_bytes":10737418240,"uuid":"GPU-1","profile":"","cores":[],"gpu_slices":0,"compute_slices":0}]', 'default', 'active', 0.5, 60.0, NULL, false, NULL, true, 'near its memory: python 7 of tour.ipynb holds 38.0 GiB of 40.0 GiB', NULL, NULL, 60.0, NULL, NULL, NULL);
INSERT INTO aistack_leases VALUES (6, 'l-de19e46dde6f41d3', 'r-6', '1/2', 'box', '{"kind":"kernel","id":"k-r-6","user":"ann","host":"box","pid":42,"label":"work/tour.ipynb"}', '[{"device_id":"GPU-1","kind":"share","fraction":"1/2","memory_bytes":10737418240,"uuid":"GPU-1","profile":"","cores":[],"gpu_slices":0,"compute_slices":0}]', 'default', 'active', 0.5, 60.0, NULL, false, NULL, true, 'its memory cannot be measured now, so nothing watches its bound', NULL, NULL, 60.0, NULL, NULL, NULL);
INSERT INTO aistack_leases VALUES (7, 'l-69830724ec774849', 'r-7', '1/2', 'box', '{"kind":"kernel","id":"k-r-7","user":"ann","host":"box","pid":42,"label":"work/tour.ipynb"}', '[{"device_id":"GPU-1","kind":"share","fraction":"1/2","memory_bytes":10737418240,"uuid":"GPU-1","profile":"","cores":[],"gpu_slices":0,"compute_slices":0}]', 'default', 'active', 0.5, 60.0, NULL, false, NULL, true, 'could not be verified: CUDA does not answer', NULL, NULL, 60.0, NULL, NULL, NULL);
INSERT INTO aistack_leases VALUES (8, 'l-c00f7dfbbece48aa', 'r-8', '1/2', 'box', '{"kind":"kernel","id":"k-r-8","user":"ann","host":"box","pid":42,"label":"work/tour.ipynb"}', '[{"device_id":"GPU-1","kind":"share","fraction":"1/2","memory_bytes":10737418240,"uuid":"GPU-1","profile":"","cores":[],"gpu_slices":0,"compute_slices":0}]', 'default', 'active', 0.5, 60.0, NULL, false, NULL, true, 'there is nothing to verify', NULL, NULL, 60.0, NULL, NULL, NULL);
INSERT INTO aistack_leases VALUES (9, 'l-4a522beacd014298', 'r-9', '1/2', 'box', '{"kind":"kernel","id":"k-r-9","user":"ann","host":"box","pid":42,"label":"work/tour.ipynb"}', '[{"device_id":"GPU-1","kind":"share","fraction":"1/2","memory_bytes":10737418240,"uuid":"GPU-1","profile":"","cores":[],"gpu_slices":0,"compute_slices":0}]', 'default', 'active', 0.5, 60.0, NULL, false, NULL, true, 'held less firmly than it could be: there is no group', NULL, NULL, 60.0, NULL, NULL, NULL);
INSERT INTO aistack_leases VALUES (10, 'l-fef12027d28d48c9', 'r-10', '1/2', 'box', '{"kind":"kernel","id":"k-r-10","user":"ann","host":"box","pid":42,"label":"work/tour.ipynb"}', '[{"device_id":"GPU-1","kind":"share","fraction":"1/2","memory_bytes":10737418240,"uuid":"GPU-1","profile":"","cores":[],"gpu_slices":0,"compute_slices":0}]', 'default', 'active', 0.5, 60.0, NULL, false, NULL, true, '', NULL, NULL, 60.0, NULL, NULL, NULL);
INSERT INTO aistack_leases VALUES (11, 'l-3ce310b9b4904e87', 'r-11', '1/2', 'box', '{"kind":"kernel","id":"k-r-11","user":"ann","host":"box","pid":42,"label":"work/tour.ipynb"}', '[{"device_id":"GPU-1","kind":"share","fraction":"1/2","memory_bytes":10737418240,"uuid":"GPU-1","profile":"","cores":[],"gpu_slices":0,"compute_slices":0}]', 'default', 'ended', 1.0, 60.0, NULL, false, NULL, NULL, 'the daemon isn''t there: it did not start', 'failed', 1.5, NULL, NULL, NULL, NULL);
INSERT INTO aistack_meta VALUES (1, 5, 30, 11);
INSERT INTO aistack_requests VALUES ('r-1', '1/2', 'box', '{"kind":"kernel","id":"k-r-1","user":"ann","host":"box","pid":42,"label":"work/tour.ipynb"}', 'default', 0, NULL, NULL, false, 0.0, 'granted', '', 'l-0035e33318ca467f');
INSERT INTO aistack_requests VALUES ('r-10', '1/2', 'box', '{"kind":"kernel","id":"k-r-10","user":"ann","host":"box","pid":42,"label":"work/tour.ipynb"}', 'default', 0, NULL, NULL, false, 0.0, 'granted', '', 'l-fef12027d28d48c9');
INSERT INTO aistack_requests VALUES ('r-11', '1/2', 'box', '{"kind":"kernel","id":"k-r-11","user":"ann","host":"box","pid":42,"label":"work/tour.ipynb"}', 'default', 0, NULL, NULL, false, 0.0, 'granted', '', 'l-3ce310b9b4904e87');
INSERT INTO aistack_requests VALUES ('r-12', '1/2', 'box', '{"kind":"kernel","id":"k-r-12","user":"ann","host":"box","pid":42,"label":"work/tour.ipynb"}', 'default', 0, NULL, NULL, false, 0.0, 'rejected', 'waits for 1/2; it was not to wait any longer', '');
INSERT INTO aistack_requests VALUES ('r-13', '1/2', 'box', '{"kind":"kernel","id":"k-r-13","user":"ann","host":"box","pid":42,"label":"work/tour.ipynb"}', 'default', 0, NULL, NULL, false, 0.0, 'rejected', 'its process has ended', '');
INSERT INTO aistack_requests VALUES ('r-14', '1/2', 'box', '{"kind":"kernel","id":"k-r-14","user":"ann","host":"box","pid":42,"label":"work/tour.ipynb"}', 'default', 0, NULL, NULL, false, 2.0, 'queued', '', '');
INSERT INTO aistack_requests VALUES ('r-15', '1/2', 'box', '{"kind":"kernel","id":"k-r-15","user":"ann","host":"box","pid":42,"label":"work/tour.ipynb"}', 'default', 0, NULL, NULL, false, 2.0, 'cancelled', 'taken back', '');
INSERT INTO aistack_requests VALUES ('r-2', '1/2', 'box', '{"kind":"kernel","id":"k-r-2","user":"ann","host":"box","pid":42,"label":"work/tour.ipynb"}', 'default', 0, NULL, NULL, false, 0.0, 'granted', '', 'l-90db012ca29f45b7');
INSERT INTO aistack_requests VALUES ('r-3', '1/2', 'box', '{"kind":"kernel","id":"k-r-3","user":"ann","host":"box","pid":42,"label":"work/tour.ipynb"}', 'default', 0, NULL, NULL, false, 0.0, 'granted', '', 'l-c4fddd7ac1ef4bc7');
INSERT INTO aistack_requests VALUES ('r-4', '1/2', 'box', '{"kind":"kernel","id":"k-r-4","user":"ann","host":"box","pid":42,"label":"work/tour.ipynb"}', 'default', 0, NULL, NULL, false, 0.0, 'granted', '', 'l-16bd7e4a3b654d8d');
INSERT INTO aistack_requests VALUES ('r-5', '1/2', 'box', '{"kind":"kernel","id":"k-r-5","user":"ann","host":"box","pid":42,"label":"work/tour.ipynb"}', 'default', 0, NULL, NULL, false, 0.0, 'granted', '', 'l-82dda8c2d4da4ae4');
INSERT INTO aistack_requests VALUES ('r-6', '1/2', 'box', '{"kind":"kernel","id":"k-r-6","user":"ann","host":"box","pid":42,"label":"work/tour.ipynb"}', 'default', 0, NULL, NULL, false, 0.0, 'granted', '', 'l-de19e46dde6f41d3');
INSERT INTO aistack_requests VALUES ('r-7', '1/2', 'box', '{"kind":"kernel","id":"k-r-7","user":"ann","host":"box","pid":42,"label":"work/tour.ipynb"}', 'default', 0, NULL, NULL, false, 0.0, 'granted', '', 'l-69830724ec774849');
INSERT INTO aistack_requests VALUES ('r-8', '1/2', 'box', '{"kind":"kernel","id":"k-r-8","user":"ann","host":"box","pid":42,"label":"work/tour.ipynb"}', 'default', 0, NULL, NULL, false, 0.0, 'granted', '', 'l-c00f7dfbbece48aa');
INSERT INTO aistack_requests VALUES ('r-9', '1/2', 'box', '{"kind":"kernel","id":"k-r-9","user":"ann","host":"box","pid":42,"label":"work/tour.ipynb"}', 'default', 0, NULL, NULL, false, 0.0, 'granted', '', 'l-4a522beacd014298');
SELECT setval('aistack_events_sequence_seq', 40);
