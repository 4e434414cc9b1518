import { Disposable } from '../app/disposable';
import { isSuspendable, type SuspendableLease } from '../text/devicestate';
import { ownLeases } from '../text/ownership';
import type { ILeaseManager } from '../tokens';
import type { ILease } from '../wire/types';

/** What a user must know of a slice that may be suspended. */
export interface ISuspendNews {
  /** Its state has left the device; `isNews` unless it was so already, or its user asked for it. */
  suspended: (lease: SuspendableLease, isNews: boolean) => void;
  /** Its state is back; `isNews` as above. */
  resumed: (lease: SuspendableLease, isNews: boolean) => void;
  /** Its state is lost; once per loss. */
  lost: (lease: SuspendableLease) => void;
  /** What was notified of it is over: it was released, or its kernel restarted. */
  over: (leaseId: string) => void;
}

/** The state of a lease at the last update. */
interface ILastState {
  /** Its state has left the device and is not all back; a kernel that was restarted meanwhile has none. */
  isSuspended: boolean;
  /** Its state is on the device. */
  isResident: boolean;
  isLost: boolean;
  /** Its user wants it moved, or wanted that when the transfer began. */
  isRequested: boolean;
}

/** Watches the leases of all kernels of this server: a suspended notebook is one in the background. */
export class SuspendWatcher extends Disposable {
  constructor(
    private readonly _manager: ILeaseManager,
    private readonly _kernelIds: () => readonly string[],
    private readonly _news: ISuspendNews
  ) {
    super();
    _manager.changed.connect(this._update, this);
  }

  private _update(): void {
    if (!this._manager.host) {
      return;
    }
    const current = new Map<string, ILastState>();
    for (const lease of ownLeases(this._manager.leases, this._kernelIds())) {
      const before = this._before.get(lease.id);
      const now = stateOf(lease, before);
      this._notify(lease, now, before);
      current.set(lease.id, now);
    }
    for (const id of this._before.keys()) {
      if (!current.has(id)) {
        this._news.over(id);
      }
    }
    this._before = current;
  }

  private _notify(lease: ILease, now: ILastState, before?: ILastState): void {
    if (!isSuspendable(lease)) {
      return;
    }
    const isNews = before !== undefined && !before.isRequested;
    switch (changeOf(now, before ?? UNKNOWN)) {
      case 'lost':
        this._news.lost(lease);
        break;
      case 'suspended':
        this._news.suspended(lease, isNews);
        break;
      case 'resumed':
        this._news.resumed(lease, isNews);
        break;
      case 'over':
        this._news.over(lease.id);
        break;
    }
  }

  private _before = new Map<string, ILastState>();
}

/** The state of a lease that is never suspended. */
const NEVER_SUSPENDED = {
  asked: '',
  phase: 'resident',
  state_bytes: null
} as const;

/** What is taken for the last state of a lease that was not there before. */
const UNKNOWN: ILastState = {
  isSuspended: false,
  isResident: false,
  isLost: false,
  isRequested: false
};

type Change = 'lost' | 'suspended' | 'resumed' | 'over' | 'none';

/** What has become of a lease since the last update. */
function changeOf(now: ILastState, before: ILastState): Change {
  if (now.isLost) {
    return before.isLost ? 'none' : 'lost';
  }
  if (now.isSuspended) {
    return before.isSuspended ? 'none' : 'suspended';
  }
  if (before.isSuspended) {
    return now.isResident ? 'resumed' : 'over';
  }
  return before.isLost ? 'over' : 'none';
}

function stateOf(lease: ILease, before?: ILastState): ILastState {
  const { asked, phase, state_bytes } = lease.residence ?? NEVER_SUSPENDED;
  const isMoving = phase === 'parking' || phase === 'restoring';
  const hasLeft = phase === 'parked' || phase === 'restoring';
  const wasRequested = isMoving && before?.isRequested === true;
  return {
    isSuspended: hasLeft && state_bytes !== 0,
    isResident: phase === 'resident',
    isLost: phase === 'lost',
    isRequested: asked !== '' || wasRequested
  };
}
