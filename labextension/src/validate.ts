/**
 * From `unknown` JSON to the shapes of `wire.ts`, or a `WireError` that names the place.
 *
 * Keys we do not know are dropped, so that an older page can talk to a newer server.
 */

import { WireError } from './errors';
import type {
  IDevice,
  IErrorBody,
  IEvent,
  IHolder,
  IHost,
  IIdlePolicy,
  ILease,
  IMIGInstance,
  INotice,
  IPrepared,
  IQueueInfo,
  IRequest,
  IRequested,
  IReservation,
  ISlice,
  ISnapshot,
  IUsage,
  IUse
} from './wire';

/** Reads a value found at `path`; throws `WireError` when it is not what it should be. */
export type Decoder<T> = (value: unknown, path: string) => T;

export const text: Decoder<string> = (value, path) => {
  if (typeof value !== 'string') {
    throw new WireError(path, 'text', value);
  }
  return value;
};

export const number: Decoder<number> = (value, path) => {
  if (typeof value !== 'number' || !Number.isFinite(value)) {
    throw new WireError(path, 'a number', value);
  }
  return value;
};

export const flag: Decoder<boolean> = (value, path) => {
  if (typeof value !== 'boolean') {
    throw new WireError(path, 'true or false', value);
  }
  return value;
};

const anything: Decoder<unknown> = value => value;

export function nullable<T>(decode: Decoder<T>): Decoder<T | null> {
  return (value, path) =>
    value === null || value === undefined ? null : decode(value, path);
}

export function list<T>(decode: Decoder<T>): Decoder<T[]> {
  return (value, path) => {
    if (!Array.isArray(value)) {
      throw new WireError(path, 'a list', value);
    }
    return value.map((item, index) => decode(item, `${path}[${index}]`));
  };
}

export function oneOf<T extends string>(...words: T[]): Decoder<T> {
  return (value, path) => {
    const found = words.find(word => word === value);
    if (found === undefined) {
      throw new WireError(path, `one of ${words.join(', ')}`, value);
    }
    return found;
  };
}

export function table<T>(decode: Decoder<T>): Decoder<Record<string, T>> {
  return (value, path) =>
    Object.fromEntries(
      Object.entries(object(value, path)).map(([key, item]) => [
        key,
        decode(item, `${path}.${key}`)
      ])
    );
}

/** A decoder for an object, with one decoder for each key of `T`. */
export function shape<T>(fields: {
  [K in keyof T]-?: Decoder<T[K]>;
}): Decoder<T> {
  const keys = Object.keys(fields) as (keyof T & string)[];
  return (value, path) => {
    const source = object(value, path);
    const result: Partial<T> = {};
    for (const key of keys) {
      result[key] = fields[key](source[key], path ? `${path}.${key}` : key);
    }
    return result as T;
  };
}

function object(value: unknown, path: string): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new WireError(path || 'answer', 'an object', value);
  }
  return value as Record<string, unknown>;
}

const mig = shape<IMIGInstance>({
  uuid: text,
  profile: text,
  memory_bytes: number,
  multiprocessors: number
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
  foreign_memory_bytes: number,
  simulated: flag,
  problem: text,
  free_fraction: text,
  peers: list(text),
  domain: text,
  level: nullable(text),
  why_not: table(text),
  advice: text
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

export const host = shape<IHost>({
  host: text,
  simulated: flag,
  problems: list(text),
  devices: list(device),
  queues: list(queueInfo),
  reservations: list(reservation)
});

const notice = shape<INotice>({
  kind: oneOf('preempt', 'idle'),
  at: number,
  ends_at: number,
  request_id: text
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
  lease: nullable(lease)
});

export const leases = shape<{ leases: ILease[] }>({ leases: list(lease) });

export const queue = shape<{ queue: IRequest[] }>({ queue: list(request) });

export const events = shape<{ events: IEvent[] }>({ events: list(event) });
