import { DisposableDelegate, type IDisposable } from '@lumino/disposable';
import { Signal, type ISignal } from '@lumino/signaling';

import { Disposable } from '../app/disposable';
import { leaseOf, requestOf } from '../text/ownership';
import type { SuspendAction } from '../text/suspendaction';
import type { ILeaseManager, ConnectionStatus } from '../tokens';
import type {
  IUsageSummary,
  IDevice,
  IHost,
  IHosts,
  ILease,
  IRequest,
  IRequestBody,
  IRequested,
  ISnapshot,
  IUsage
} from '../wire/types';
import type { RestAPI } from './restapi';
import { SnapshotStream } from './stream';

/** Keeps the last snapshot; each method that changes something does so on the server first and then fetches the result. */
export class LeaseManager extends Disposable implements ILeaseManager {
  constructor(options: LeaseManager.IOptions) {
    super();
    this._api = options.api;
    this._stream = new SnapshotStream({
      open: options.openSocket,
      fetch: () => this._api.snapshot(),
      onSnapshot: snapshot => this._setSnapshot(snapshot),
      onStatus: (status, problem) => this._setStatus(status, problem)
    });
    document.addEventListener('visibilitychange', this._onVisibility);
    this._stream.start();
  }

  get host(): IHost | null {
    return this._snapshot?.host ?? null;
  }

  get leases(): readonly ILease[] {
    return this._snapshot?.leases ?? [];
  }

  get queue(): readonly IRequest[] {
    return this._snapshot?.queue ?? [];
  }

  get usage(): IUsage | null {
    return this._snapshot?.usage ?? null;
  }

  get status(): ConnectionStatus {
    return this._status;
  }

  get problem(): string {
    return this._problem;
  }

  get lastSeen(): number | null {
    return this._lastSeen;
  }

  get changed(): ISignal<ILeaseManager, void> {
    return this._changed;
  }

  protected onDispose(): void {
    document.removeEventListener('visibilitychange', this._onVisibility);
    this._stream.dispose();
  }

  now(): number {
    return Date.now() / 1000 + this._clockOffset;
  }

  leaseOf(kernelId: string): ILease | null {
    return leaseOf(this.leases, kernelId);
  }

  requestOf(kernelId: string): IRequest | null {
    return requestOf(this.queue, kernelId);
  }

  hosts(): Promise<IHosts> {
    return this._api.hosts();
  }

  usageSummary(kernelId: string): Promise<IUsageSummary> {
    return this._api.usageSummary(kernelId);
  }

  request(body: IRequestBody): Promise<IRequested> {
    return this._mutate(() => this._api.request(body));
  }

  release(leaseId: string): Promise<ILease> {
    return this._mutate(() => this._api.release(leaseId));
  }

  extend(leaseId: string, seconds: number): Promise<ILease> {
    return this._mutate(() => this._api.extend(leaseId, seconds));
  }

  applySuspendAction(leaseId: string, action: SuspendAction): Promise<ILease> {
    return this._mutate(() => this._api.applySuspendAction(leaseId, action));
  }

  cancel(requestId: string): Promise<IRequest> {
    return this._mutate(() => this._api.cancel(requestId));
  }

  drain(deviceId: string, reason: string): Promise<IDevice> {
    return this._mutate(() => this._api.drain(deviceId, reason));
  }

  undrain(deviceId: string): Promise<IDevice> {
    return this._mutate(() => this._api.undrain(deviceId));
  }

  async refresh(): Promise<void> {
    this._setSnapshot(await this._api.snapshot());
  }

  reconnect(): void {
    this._setStatus(this._snapshot ? 'disconnected' : 'loading');
    this._stream.start();
  }

  watch(): IDisposable {
    this._watchers += 1;
    this._updateInterval();
    return new DisposableDelegate(() => {
      this._watchers -= 1;
      this._updateInterval();
    });
  }

  /** Rejects when `call` does; a failure of the refresh after it is left to the stream. */
  private async _mutate<T>(call: () => Promise<T>): Promise<T> {
    try {
      return await call();
    } finally {
      await this.refresh().catch(() => undefined);
    }
  }

  private _setSnapshot(snapshot: ISnapshot): void {
    if (this.isDisposed) {
      return;
    }
    this._snapshot = snapshot;
    this._lastSeen = Date.now();
    this._clockOffset = clockOffset(snapshot.usage.at, this._lastSeen / 1000);
    this._changed.emit();
  }

  private _setStatus(status: ConnectionStatus, problem = ''): void {
    if (status === this._status && problem === this._problem) {
      return;
    }
    this._status = status;
    this._problem = problem;
    this._changed.emit();
  }

  private _updateInterval(): void {
    if (!this.isDisposed) {
      this._stream.setInterval(this._watchers > 0 && !document.hidden ? 1 : 5);
    }
  }

  private _onVisibility = (): void => this._updateInterval();

  private readonly _api: RestAPI;
  private readonly _stream: SnapshotStream;
  private _changed = new Signal<ILeaseManager, void>(this);
  private _clockOffset = 0;
  private _lastSeen: number | null = null;
  private _problem = '';
  private _snapshot: ISnapshot | null = null;
  private _status: ConnectionStatus = 'loading';
  private _watchers = 0;
}

/** Smaller differences are the age of the sample, not that of the clocks. */
const SAME_CLOCK_SECONDS = 30;

function clockOffset(server: number, browser: number): number {
  const offset = server > 0 ? server - browser : 0;
  return Math.abs(offset) > SAME_CLOCK_SECONDS ? offset : 0;
}

export namespace LeaseManager {
  export interface IOptions {
    api: RestAPI;
    /** Opens a socket to `stream`; may throw. */
    openSocket: () => WebSocket;
  }
}
