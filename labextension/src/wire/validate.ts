/**
 * From `unknown` JSON to the shapes of `wire.ts`, or a `WireError` that names the place.
 *
 * Keys we do not know are dropped, so that an older page can talk to a newer server; some that older servers do not
 * send may be missing.
 */

import {
  anything,
  flag,
  list,
  nullable,
  number,
  oneOf,
  optional,
  shape,
  table,
  text
} from './decoders';
import type {
  IBill,
  IDevice,
  IErrorBody,
  IEvent,
  IHolder,
  IHost,
  IIdlePolicy,
  ILease,
  ILeaseSums,
  IMIGInstance,
  INotice,
  IPrepared,
  IQueueInfo,
  IRequest,
  IRequested,
  IReservation,
  IResidence,
  ISlice,
  ISnapshot,
  ISuspension,
  IUsage,
  IUse
} from './types';

const mig = shape<IMIGInstance>({
  uuid: text,
  profile: text,
  memory_bytes: number,
  multiprocessors: number,
  gpu_slices: optional(number, 0),
  compute_slices: optional(number, 0)
});

const device = shape<IDevice>({
  id: text,
  host: text,
  kind: oneOf('gpu', 'cpu'),
  index: number,
  name: text,
  memory_bytes: number,
  cores: list(number),
  multiprocessors: number,
  mig_enabled: flag,
  mig: list(mig),
  mig_offers: optional(list(text), []),
  vendor: optional(text, ''),
  is_divisible: optional(flag, true),
  foreign_memory_bytes: number,
  simulated: flag,
  problem: text,
  free_fraction: text,
  peers: list(text),
  domain: text,
  level: nullable(
    oneOf('L4', 'L3', 'L2', 'L1', 'L0', 'whole', 'C', 'simulated')
  ),
  why_not: optional(table(text), {}),
  advice: optional(text, ''),
  free_bytes: nullable(number)
});

const idlePolicy = shape<IIdlePolicy>({
  badge_seconds: number,
  notice_seconds: number,
  reclaim_seconds: number
});

const queueInfo = shape<IQueueInfo>({
  name: text,
  quota: text,
  limit: nullable(text),
  weight: text,
  priority: number,
  is_open: flag,
  is_batch: flag,
  members: list(text),
  idle: nullable(idlePolicy),
  suspend: optional(flag, false),
  held: text
});

const reservation = shape<IReservation>({
  id: text,
  name: text,
  queue: text,
  spec: text,
  count: number,
  starts_at: number,
  ends_at: number,
  is_weekly: flag,
  created_by: text,
  next_starts_at: nullable(number),
  next_ends_at: nullable(number),
  is_running: flag
});

const holder = shape<IHolder>({
  kind: oneOf('kernel', 'worker', 'run', 'process'),
  id: text,
  user: text,
  host: text,
  pid: nullable(number),
  root_pid: nullable(number),
  label: text,
  parent: text
});

const slice = shape<ISlice>({
  device_id: text,
  kind: oneOf('gpu', 'mig', 'mps', 'share', 'cpu'),
  fraction: text,
  memory_bytes: number,
  uuid: text,
  profile: text,
  cores: list(number)
});

const use = shape<IUse>({
  memory_bytes: nullable(number),
  utilization: nullable(number),
  power_watts: nullable(number),
  energy_joules: nullable(number)
});

export const bill = shape<IBill>({
  leases: table(
    shape<ILeaseSums>({
      gpu_seconds: number,
      metered_seconds: number,
      energy_joules: number
    })
  )
});

const tier = oneOf('checkpoint', 'offload', 'simulated', 'off');

const suspension = shape<ISuspension>({
  tier,
  why: optional(text, '')
});

export const host = shape<IHost>({
  host: text,
  simulated: flag,
  problems: list(text),
  devices: list(device),
  queues: list(queueInfo),
  reservations: list(reservation),
  suspend: nullable(suspension)
});

const notice = shape<INotice>({
  kind: oneOf('preempt', 'idle'),
  at: number,
  ends_at: number,
  request_id: text
});

const residence = shape<IResidence>({
  phase: oneOf('resident', 'parking', 'parked', 'restoring', 'lost'),
  state_bytes: nullable(number),
  is_busy: flag,
  active_at: number,
  wanted_at: nullable(number),
  pinned: text,
  is_kept: flag,
  failures: number,
  failed_at: number,
  asked: oneOf('', 'suspend', 'resume'),
  tier,
  note: text,
  standing: oneOf('held', 'warm', 'suspended', 'pinned', 'lost'),
  why: text
});

export const lease = shape<ILease>({
  id: text,
  token: number,
  request_id: text,
  spec: text,
  holder,
  slices: list(slice),
  queue: text,
  state: oneOf('granted', 'active', 'suspended', 'releasing', 'ended'),
  granted_at: number,
  expires_at: number,
  ends_at: nullable(number),
  preemptible: flag,
  enforced_by: nullable(text),
  enforcement: text,
  verified: nullable(flag),
  note: text,
  active_at: nullable(number),
  notice: nullable(notice),
  residence: nullable(residence),
  outcome: nullable(
    oneOf(
      'released',
      'expired',
      'preempted',
      'failed',
      'abandoned',
      'reclaimed'
    )
  ),
  ended_at: nullable(number)
});

export const request = shape<IRequest>({
  id: text,
  spec: text,
  holder,
  queue: text,
  priority: number,
  lease_seconds: nullable(number),
  patience_seconds: nullable(number),
  preemptible: flag,
  submitted_at: number,
  state: oneOf('queued', 'granted', 'rejected', 'cancelled'),
  reason: text,
  lease_id: text,
  position: nullable(number),
  eta_at: nullable(number)
});

export const usage = shape<IUsage>({
  at: number,
  devices: table(use),
  leases: table(use)
});

export const event = shape<IEvent>({
  sequence: number,
  kind: text,
  at: number,
  request_id: text,
  lease_id: text,
  detail: text
});

export const prepared = shape<IPrepared>({
  environment: table(text),
  cores: list(number),
  memory_limit_bytes: number,
  enforced_by: text,
  expects: table(anything)
});

export const errorBody = shape<IErrorBody>({
  code: text,
  message: text,
  facts: table(anything)
});

export const snapshot = shape<ISnapshot>({
  host,
  leases: list(lease),
  queue: list(request),
  usage
});

export const requested = shape<IRequested>({
  request,
  lease: nullable(lease),
  advice: optional(text, '')
});

export const leases = shape<{ leases: ILease[] }>({ leases: list(lease) });

export const queue = shape<{ queue: IRequest[] }>({ queue: list(request) });

export const events = shape<{ events: IEvent[] }>({ events: list(event) });
