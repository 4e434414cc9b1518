import { Disposable } from '../app/disposable';
import { leaseOf } from '../text/ownership';
import type { ICurrentKernel, ILeaseManager } from '../tokens';
import type { ILease } from '../wire/types';

/** What is worth a notification. */
export interface ILeaseNews {
  /** A request that waited was granted. */
  granted: (lease: ILease) => void;
  /** A lease is about to end; told once per end. */
  ending: (lease: ILease, secondsLeft: number) => void;
}

/** Watches the leases of one kernel at a time for news. */
export class LeaseWatcher extends Disposable {
  constructor(
    private readonly _manager: ILeaseManager,
    private readonly _kernel: ICurrentKernel,
    private readonly _news: ILeaseNews,
    private readonly _warnSeconds: () => number
  ) {
    super();
    _manager.changed.connect(this._update, this);
    _kernel.changed.connect(this._update, this);
  }

  private _update(): void {
    const id = this._kernel.id;
    const lease = id ? leaseOf(this._manager.leases, id) : null;
    this._checkGrant(id, lease);
    if (lease) {
      this._checkEnd(lease);
    }
  }

  private _checkGrant(kernelId: string | null, lease: ILease | null): void {
    const waiting = kernelId ? this._manager.requestOf(kernelId) : null;
    if (lease && this._waitingId === lease.request_id) {
      this._news.granted(lease);
    }
    this._waitingId = waiting?.id ?? null;
  }

  private _checkEnd(lease: ILease): void {
    if (lease.ends_at === null || this._warned.has(endOf(lease))) {
      return;
    }
    const left = lease.ends_at - this._manager.now();
    if (left > 0 && left <= this._warnSeconds()) {
      this._warned.add(endOf(lease));
      this._news.ending(lease, left);
    }
  }

  private _waitingId: string | null = null;
  private _warned = new Set<string>();
}

/** An extended lease has a new end, which is worth a warning of its own. */
function endOf(lease: ILease): string {
  return `${lease.id}@${lease.ends_at}`;
}
