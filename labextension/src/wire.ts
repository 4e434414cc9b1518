/**
 * The JSON shapes of the server, spelled exactly as `jupyter_aistack/wire.py` writes them.
 *
 * Times are seconds since the epoch, sizes are bytes, shares are text such as "1/4".
 */

export interface IMIGInstance {
  uuid: string;
  profile: string;
  memory_bytes: number;
  multiprocessors: number;
}

export interface IDevice {
  id: string;
  host: string;
  kind: 'gpu' | 'cpu';
  index: number;
  name: string;
  memory_bytes: number;
  cores: number[];
  multiprocessors: number;
  mig_enabled: boolean;
  mig: IMIGInstance[];
  /** Memory held by processes outside any lease. */
  foreign_memory_bytes: number;
  simulated: boolean;
  /** Why it cannot be used, in one sentence; empty when healthy. */
  problem: string;
  free_fraction: string;
  /** Devices with a fast link to this one. */
  peers: string[];
  /** Devices of one domain are near one another; empty where nothing is known. */
  domain: string;
  /** How firmly shares are held now, L4 to L0; null where none can be granted. */
  level: string | null;
  /** Each level above that one, and why it is not reached. */
  why_not: Record<string, string>;
  /** What an administrator could do about it; empty for nothing. */
  advice: string;
}

/** When leases that nobody uses are taken back; seconds since they were last in use. */
export interface IIdlePolicy {
  badge_seconds: number;
  notice_seconds: number;
  reclaim_seconds: number;
}

/** A queue; quota, limit and held are in devices, e.g. "5/2". */
export interface IQueueInfo {
  name: string;
  /** What it is owed: below that it goes first. */
  quota: string;
  /** The most it may hold; null for no limit. */
  limit: string | null;
  weight: string;
  priority: number;
  is_open: boolean;
  is_batch: boolean;
  /** Login names, or "@group"; empty for everybody. */
  members: string[];
  /** Null where idle leases are left alone. */
  idle: IIdlePolicy | null;
  held: string;
}

/** Slices kept for the members of a queue during certain hours. */
export interface IReservation {
  id: string;
  name: string;
  queue: string;
  /** What each gets. */
  spec: string;
  count: number;
  /** The first window. */
  starts_at: number;
  ends_at: number;
  is_weekly: boolean;
  created_by: string;
  /** The window that runs or else the next; null when there is none any more. */
  next_starts_at: number | null;
  next_ends_at: number | null;
  is_running: boolean;
}

export interface IHost {
  host: string;
  simulated: boolean;
  problems: string[];
  devices: IDevice[];
  queues: IQueueInfo[];
  reservations: IReservation[];
}

export interface IHolder {
  kind: 'kernel' | 'worker' | 'run' | 'process';
  id: string;
  user: string;
  host: string;
  pid: number | null;
  root_pid: number | null;
  /** For people: the notebook's path where there is one. */
  label: string;
  /** The kernel that started this worker or run; empty when none did. */
  parent: string;
}

export interface ISlice {
  device_id: string;
  kind: 'gpu' | 'mig' | 'mps' | 'share' | 'cpu';
  fraction: string;
  memory_bytes: number;
  uuid: string;
  profile: string;
  cores: number[];
}

export type LeaseState =
  'granted' | 'active' | 'suspended' | 'releasing' | 'ended';

/** The word that a lease will be taken back. */
export interface INotice {
  /** "preempt": somebody who goes first needs the room; "idle": nobody uses it. */
  kind: 'preempt' | 'idle';
  at: number;
  ends_at: number;
  /** The request that needs the room; empty for an idle lease. */
  request_id: string;
}

export interface ILease {
  id: string;
  token: number;
  request_id: string;
  spec: string;
  holder: IHolder;
  slices: ISlice[];
  queue: string;
  state: LeaseState;
  granted_at: number;
  expires_at: number;
  ends_at: number | null;
  preemptible: boolean;
  enforced_by: string | null;
  enforcement: string;
  verified: boolean | null;
  note: string;
  /** When it was last seen in use; null when nobody watches that. */
  active_at: number | null;
  notice: INotice | null;
  outcome:
    | 'released'
    | 'expired'
    | 'preempted'
    | 'failed'
    | 'abandoned'
    | 'reclaimed'
    | null;
  ended_at: number | null;
}

export type RequestState = 'queued' | 'granted' | 'rejected' | 'cancelled';

export interface IRequest {
  id: string;
  spec: string;
  holder: IHolder;
  queue: string;
  priority: number;
  lease_seconds: number | null;
  patience_seconds: number | null;
  preemptible: boolean;
  submitted_at: number;
  state: RequestState;
  /** Why it waits or was refused, for people. */
  reason: string;
  lease_id: string;
  position: number | null;
  /** When it is expected to be granted; null when nobody can tell. */
  eta_at: number | null;
}

/** What a device or lease uses; null means "cannot be known here", never zero. */
export interface IUse {
  memory_bytes: number | null;
  utilization: number | null;
  power_watts: number | null;
  energy_joules: number | null;
}

export interface IUsage {
  at: number;
  devices: Record<string, IUse>;
  leases: Record<string, IUse>;
}

export interface IEvent {
  sequence: number;
  kind: string;
  at: number;
  request_id: string;
  lease_id: string;
  detail: string;
}

export interface IPrepared {
  environment: Record<string, string>;
  cores: number[];
  memory_limit_bytes: number;
  enforced_by: string;
  expects: Record<string, unknown>;
}

/** The body of every answer that is not 2xx. */
export interface IErrorBody {
  code: string;
  message: string;
  facts: Record<string, unknown>;
}

/** Everything the panel shows, at one moment. */
export interface ISnapshot {
  host: IHost;
  leases: ILease[];
  queue: IRequest[];
  usage: IUsage;
}

/** The answer to a request: the lease when it was granted, null while it waits. */
export interface IRequested {
  request: IRequest;
  lease: ILease | null;
}

/** The body of `POST leases`. */
export interface IRequestBody {
  spec: string;
  kernel_id?: string;
  /** Without it, the queue that the user belongs to. */
  queue?: string;
  lease_seconds?: number;
  /** It may be taken back for others. */
  preemptible?: boolean;
}
