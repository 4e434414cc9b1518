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
  /** Compute slices of the GPU instance it lies in, and how many are its own; 0 when unknown. */
  gpu_slices: number;
  compute_slices: number;
}

/** What holds a slice to its size: a rung of the ladder, strongest first, or why there is none. */
export type Enforcement =
  'L4' | 'L3' | 'L2' | 'L1' | 'L0' | 'whole' | 'C' | 'simulated';

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
  /** Profiles that may be created on it when somebody waits for one. */
  mig_offers: string[];
  /** Who made it, such as "amd"; empty where that does not matter. */
  vendor: string;
  /** Fractions of it can be granted. */
  is_divisible: boolean;
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
  /** The strongest level that shares of it reach now; null where that is not known. */
  level: Enforcement | null;
  /** Why each level above that is not reached, one sentence each. */
  why_not: Record<string, string>;
  /** What an administrator could do about that; empty for nothing. */
  advice: string;
  /** Memory that the driver says is free now. */
  free_bytes: number | null;
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
  /** Idle leases give their device memory back when somebody needs it. */
  suspend: boolean;
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

/** How the state of a kernel leaves its device: by the driver, as far as it is registered, in name only, or not at all. */
export type Tier = 'checkpoint' | 'offload' | 'simulated' | 'off';

/** The best way in which idle leases of this host can be suspended, and why there is no better one. */
export interface ISuspension {
  tier: Tier;
  why: string;
}

export interface IHost {
  host: string;
  simulated: boolean;
  problems: string[];
  devices: IDevice[];
  queues: IQueueInfo[];
  reservations: IReservation[];
  /** Null where the server does not say. */
  suspend: ISuspension | null;
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

/** How the device memory of a lease is seen. */
export type Standing = 'held' | 'warm' | 'suspended' | 'pinned' | 'lost';

/** Where the device state of a lease is. */
export interface IResidence {
  phase: 'resident' | 'parking' | 'parked' | 'restoring' | 'lost';
  /** What it held on each of its devices when it was parked; null while that is not known. */
  state_bytes: number | null;
  /** A cell of it runs. */
  is_busy: boolean;
  /** When it was last in use, came or came back. */
  active_at: number;
  /** Since when a cell of it waits to have it back; null for not. */
  wanted_at: number | null;
  /** Why it must stay; empty when it need not. */
  pinned: string;
  /** It is its user who says so. */
  is_kept: boolean;
  /** Suspends that failed in a row, and when the last one did. */
  failures: number;
  failed_at: number;
  /** What its user wants now. */
  asked: '' | 'suspend' | 'resume';
  /** How it was parked; off while it never was. */
  tier: Tier;
  note: string;
  standing: Standing;
  /** Why it stands so, for people. */
  why: string;
}

/** What the user may ask of a residence; the last part of its route. */
export type ResidenceVerb = 'suspend' | 'resume' | 'pin' | 'unpin';

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
  /** Null where it is never suspended. */
  residence: IResidence | null;
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

/** What the books have charged one lease. */
export interface ILeaseSums {
  gpu_seconds: number;
  /** For how many of these its energy is known. */
  metered_seconds: number;
  energy_joules: number;
}

/** What a kernel has used; of that, the part that is shown. */
export interface IBill {
  leases: Record<string, ILeaseSums>;
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
  /** What earlier use of this notebook suggests, for people; empty for nothing. */
  advice: string;
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
