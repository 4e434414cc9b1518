import { Disposable } from '../app/disposable';
import { isSuspendable, type SuspendableLease } from '../text/devicestate';
import { isOwn } from '../text/ownership';
import type { ILeaseManager } from '../tokens';
import type { IDevice, ILease } from '../wire/types';

/** What a user must know of a slice that is held. */
export interface ISuspendNews {
  /** Its state has left the device; `isNews` unless it was so already, or its user asked for it. */
  suspended: (lease: SuspendableLease, isNews: boolean) => void;
  /** Its state is back; `isNews` as above. */
  resumed: (lease: SuspendableLease, isNews: boolean) => void;
  /** Its state is gone; told once per loss. */
  lost: (lease: SuspendableLease) => void;
  /** Nothing holds it to its size; told once per reason. */
  unenforced: (lease: ILease) => void;
  /** It has come near its memory, or gone over it; told once until it is calm again. */
  filled: (lease: ILease) => void;
  /** Its device cannot be used; told once per problem. */
  deviceFailed: (lease: ILease, device: IDevice) => void;
  /** Whatever was said of it is over: it was given back, or began anew. */
  over: (leaseId: string) => void;
}

/** Watches the leases of all kernels of this server: a notebook in the background is the one that is suspended. */
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
    const seen = new Map<string, ISeen>();
    for (const lease of this._ownLeases()) {
      const before = this._seen.get(lease.id);
      this._checkSuspend(lease, before);
      this._lookAtSize(lease, before);
      this._checkDevices(lease);
      seen.set(lease.id, seenOf(lease, before));
    }
    for (const id of this._seen.keys()) {
      if (!seen.has(id)) {
        this._news.over(id);
      }
    }
    this._seen = seen;
  }

  private _checkSuspend(lease: ILease, before?: ISeen): void {
    if (!isSuspendable(lease)) {
      return;
    }
    const { phase } = lease.residence;
    const { isAway, isLost } = seenOf(lease, before);
    const isNews = before !== undefined && !before.isAsked;
    if (isLost && !before?.isLost) {
      this._news.lost(lease);
    } else if (isAway && !before?.isAway) {
      this._news.suspended(lease, isNews);
    } else if (before?.isAway && phase === 'resident') {
      this._news.resumed(lease, isNews);
    } else if ((before?.isLost && !isLost) || (before?.isAway && !isAway)) {
      this._news.over(lease.id);
    }
  }

  private _lookAtSize(lease: ILease, before?: ISeen): void {
    if (lease.verified === false && lease.note !== before?.unenforced) {
      this._news.unenforced(lease);
    }
    if (fillOf(lease) > (before?.fill ?? 0)) {
      this._news.filled(lease);
    }
  }

  private _checkDevices(lease: ILease): void {
    for (const device of this._manager.host?.devices ?? []) {
      const isThere = lease.slices.some(s => s.device_id === device.id);
      const key = `${lease.id} ${device.id} ${device.problem}`;
      if (device.problem && isThere && !this._failedDevices.has(key)) {
        this._failedDevices.add(key);
        this._news.deviceFailed(lease, device);
      }
    }
  }

  private _ownLeases(): ILease[] {
    const kernels = this._kernelIds();
    return this._manager.leases.filter(
      ({ holder, state }) =>
        state !== 'ended' && kernels.some(kernel => isOwn(holder, kernel))
    );
  }

  private _seen = new Map<string, ISeen>();
  private readonly _failedDevices = new Set<string>();
}

/** How a lease was when last looked at. */
interface ISeen {
  /** Its state has left the device and is not all back; a kernel that was restarted meanwhile has none. */
  isAway: boolean;
  isLost: boolean;
  /** Its user wants it moved, or wanted that when the move began. */
  isAsked: boolean;
  /** Why it was not enforced; null while it was. */
  unenforced: string | null;
  fill: number;
}

/** How a lease is looked at that is never suspended. */
const NOWHERE = { asked: '', phase: 'resident', state_bytes: null } as const;

function seenOf(lease: ILease, before?: ISeen): ISeen {
  const { asked, phase, state_bytes } = lease.residence ?? NOWHERE;
  const isMoving = phase === 'parking' || phase === 'restoring';
  return {
    isAway: (phase === 'parked' || phase === 'restoring') && state_bytes !== 0,
    isLost: phase === 'lost',
    isAsked: asked !== '' || (isMoving && before?.isAsked === true),
    unenforced: lease.verified === false ? lease.note : null,
    fill: fillOf(lease)
  };
}

/** How far its memory has come by what the server says of it: 0 for calm, 1 for near its bound, 2 for over it. */
function fillOf({ note }: ILease): number {
  if (/^(over its memory|uses more memory)/.test(note)) {
    return 2;
  }
  return note.startsWith('near its memory') ? 1 : 0;
}
