/** What the tests put in place of server, socket, kernel and translator. */

import type { TranslationBundle } from '@jupyterlab/translation';
import { Signal, type ISignal } from '@lumino/signaling';
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';

import { LeaseManager } from '../api/manager';
import { RestAPI } from '../api/restapi';
import type { ICurrentKernel } from '../tokens';
import type {
  ConditionKind,
  ICondition,
  IDeviceState,
  ISnapshot,
  Severity
} from '../wire/types';
import * as validate from '../wire/validate';

/** The samples that the Python side is tested against, too; a fresh copy each time. */
export function samples(): Record<string, unknown> {
  const file = resolve(__dirname, '../../../tests/data/wire_samples.json');
  return JSON.parse(readFileSync(file, 'utf8')) as Record<string, unknown>;
}

/** The kernel that holds the lease "l-tour" of the samples. */
export const KERNEL = '2f6c1f6e-8f0e-4a7c-9d0b-3f1f0f1f0f1f';
/** The kernel that waits with the request "r-waits". */
export const WAITING_KERNEL = '7b0f3d1c-1111-4222-8333-944445555666';
/** The kernel whose worker holds "l-worker". */
export const PARENT_KERNEL = '9e107d9d-372b-4bb6-826b-d81d3542a419';

/** The samples, in which the lease "l-tour" is one that is never suspended. */
export function sampleSnapshot(): ISnapshot {
  const snapshot = validate.snapshot(samples(), '');
  snapshot.leases[0].residence = null;
  return snapshot;
}

/** The same with "l-tour" suspended, as in the samples, or changed from there. */
export function suspendedSnapshot(
  changes: Partial<IDeviceState> = {}
): ISnapshot {
  const snapshot = validate.snapshot(samples(), '');
  const [lease] = snapshot.leases;
  lease.residence = { ...lease.residence!, ...changes };
  return snapshot;
}

/** What makes the residence of `suspendedSnapshot` one that may be suspended. */
export const WARM: Partial<IDeviceState> = {
  phase: 'resident',
  standing: 'warm',
  state_bytes: null
};

export const LOST: Partial<IDeviceState> = {
  phase: 'lost',
  standing: 'lost',
  why: 'the helper ended while it moved'
};

/** A condition as the server sends it. */
export function conditionSample(
  kind: ConditionKind,
  severity: Severity,
  message: string
): ICondition {
  return { kind, severity, message, since: 1790000300 };
}

function fill(text: string, values: unknown[]): string {
  return values.reduce<string>(
    (filled, value, index) => filled.replace(`%${index + 1}`, String(value)),
    text
  );
}

export const trans = {
  __: (text: string, ...values: unknown[]) => fill(text, values),
  _n: (one: string, many: string, n: number, ...values: unknown[]) =>
    fill(n === 1 ? one : many, [n, ...values])
} as unknown as TranslationBundle;

/** A socket that does what the test tells it. */
export class FakeSocket {
  static opened: FakeSocket[] = [];

  constructor() {
    FakeSocket.opened.push(this);
  }

  static get latest(): FakeSocket {
    return FakeSocket.opened[FakeSocket.opened.length - 1];
  }

  static open(): WebSocket {
    return new FakeSocket() as unknown as WebSocket;
  }

  onopen: (() => void) | null = null;
  onmessage: ((event: { data: unknown }) => void) | null = null;
  onclose: ((event: { reason: string }) => void) | null = null;
  sent: unknown[] = [];
  isClosed = false;

  send(text: string): void {
    this.sent.push(JSON.parse(text));
  }

  close(): void {
    this.isClosed = true;
  }

  accept(): void {
    this.onopen?.();
  }

  push(message: object): void {
    this.onmessage?.({ data: JSON.stringify(message) });
  }

  pushSnapshot(): void {
    this.push({ type: 'snapshot', ...sampleSnapshot() });
  }

  show(snapshot: ISnapshot): void {
    this.push({ type: 'snapshot', ...snapshot });
  }

  fail(reason = ''): void {
    this.onclose?.({ reason });
  }
}

/** A server whose routes answer from a table; remembers what it was asked. */
export class FakeServer {
  asked: { method: string; path: string; body: unknown }[] = [];
  answers: Record<string, { status: number; body: unknown }> = {};

  constructor() {
    const { host, leases, queue, usage } = sampleSnapshot();
    this.answer('GET host', host);
    this.answer('GET leases', { leases });
    this.answer('GET queue', { queue });
    this.answer('GET usage', usage);
  }

  answer(route: string, body: unknown, status = 200): void {
    this.answers[route] = { status, body };
  }

  fetch = async (path: string, init: RequestInit = {}): Promise<Response> => {
    const method = init.method ?? 'GET';
    const body: unknown = init.body ? JSON.parse(String(init.body)) : null;
    this.asked.push({ method, path, body });
    const found = this.answers[`${method} ${path}`] ?? {
      status: 404,
      body: '<html>Not Found</html>'
    };
    const text =
      typeof found.body === 'string' ? found.body : JSON.stringify(found.body);
    return new Response(text, { status: found.status });
  };
}

/** A manager whose only socket is `FakeSocket.latest`; the test disposes of it. */
export function managerOf(server: FakeServer): LeaseManager {
  FakeSocket.opened = [];
  return new LeaseManager({
    api: new RestAPI(server.fetch),
    openSocket: () => FakeSocket.open()
  });
}

export class FakeKernel implements ICurrentKernel {
  constructor(public id: string | null) {}

  path = 'work/tour.ipynb';
  isDisposed = false;
  changed: ISignal<ICurrentKernel, void> = new Signal<ICurrentKernel, void>(
    this
  );

  dispose(): void {
    this.isDisposed = true;
  }
}
