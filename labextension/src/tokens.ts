import { Token } from '@lumino/coreutils';
import type { IDisposable } from '@lumino/disposable';
import type { ISignal } from '@lumino/signaling';

import type { SuspendAction } from './text/suspendaction';
import type {
  IUsageSummary,
  IDevice,
  IHost,
  IHosts,
  ILease,
  IRequest,
  IRequestBody,
  IRequested,
  IUsage
} from './wire/types';

/** How fresh the data is: pushed, fetched now and then, stale, or not there yet. */
export type ConnectionStatus =
  'loading' | 'connected' | 'polling' | 'disconnected';

/** The state of the broker as this page knows it, and what changes it. */
export interface ILeaseManager extends IDisposable {
  /** The host and its devices; null until the first snapshot. */
  readonly host: IHost | null;
  /** Live leases of all users of the host. */
  readonly leases: readonly ILease[];
  /** Waiting requests, first served first. */
  readonly queue: readonly IRequest[];
  /** What is in use; null until the first snapshot. */
  readonly usage: IUsage | null;
  readonly status: ConnectionStatus;
  /** Why `status` is "disconnected", for people; empty otherwise. */
  readonly problem: string;
  /** When the last snapshot came, in milliseconds since the epoch by the browser's clock; null for never. */
  readonly lastSeen: number | null;
  /** Something of the above has changed. */
  readonly changed: ISignal<ILeaseManager, void>;

  /** Seconds since the epoch by the server's clock. */
  now(): number;
  /** The live lease of a kernel, or null. */
  leaseOf(kernelId: string): ILease | null;
  /** The waiting request of a kernel, or null. */
  requestOf(kernelId: string): IRequest | null;

  /** All hosts that share the ledger of this host, as each has told last. */
  hosts(): Promise<IHosts>;
  /** What a kernel has used, as recorded by the server. */
  usageSummary(kernelId: string): Promise<IUsageSummary>;
  /** Asks for a slice. Rejects with `AIStackError` when it is refused. */
  request(body: IRequestBody): Promise<IRequested>;
  /** Gives a slice back. */
  release(leaseId: string): Promise<ILease>;
  /** Moves the end of a lease `seconds` further away. */
  extend(leaseId: string, seconds: number): Promise<ILease>;
  /** Suspends or resumes the device state of a lease, or pins it to its devices or no longer. */
  applySuspendAction(leaseId: string, action: SuspendAction): Promise<ILease>;
  /** Withdraws a waiting request. */
  cancel(requestId: string): Promise<IRequest>;
  /** Has nothing new granted on a device; what is leased there goes on. */
  drain(deviceId: string, reason: string): Promise<IDevice>;
  /** Has a device granted again. */
  undrain(deviceId: string): Promise<IDevice>;
  /** Fetches everything anew. */
  refresh(): Promise<void>;
  /** Connects afresh, without waiting for the next attempt. */
  reconnect(): void;
  /** Asks for a snapshot per second for as long as the result is not disposed; otherwise they come every five. */
  watch(): IDisposable;
}

export const ILeaseManager = new Token<ILeaseManager>(
  'jupyter-aistack:ILeaseManager',
  'The slices of this host: who holds them, who waits, and how to change that.'
);

/** The kernel that commands and panel speak of: that of the notebook in front. */
export interface ICurrentKernel extends IDisposable {
  /** Its id; null when there is none. */
  readonly id: string | null;
  /** The path of its notebook; empty when there is none. */
  readonly path: string;
  readonly changed: ISignal<ICurrentKernel, void>;
}

export const ICurrentKernel = new Token<ICurrentKernel>(
  'jupyter-aistack:ICurrentKernel',
  'The kernel of the notebook in front.'
);
