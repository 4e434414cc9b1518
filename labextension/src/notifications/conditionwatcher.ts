import { Disposable } from '../app/disposable';
import { conditionOf } from '../text/condition';
import { ownLeases } from '../text/ownership';
import type { ILeaseManager } from '../tokens';
import type { ConditionKind, ICondition, IDevice, ILease } from '../wire/types';

/** What a user must know of the condition of a slice. */
export interface IConditionNews {
  /** A condition has come up, or its reason has changed. */
  raised: (lease: ILease, condition: ICondition) => void;
  /** Its device cannot be used, and no condition says so; once per problem. */
  deviceFailed: (lease: ILease, device: IDevice) => void;
}

/** The kinds that are worth a notification; of the others the panel tells. */
const NOTIFIED: readonly ConditionKind[] = [
  'DeviceUnhealthy',
  'DeviceFault',
  'MemoryExceeded',
  'NotEnforced',
  'LimitLowered',
  'MemoryPressure'
];

/** Kinds whose message changes all the time: not each change is news. */
const FLUCTUATING: readonly ConditionKind[] = [
  'MemoryExceeded',
  'MemoryPressure'
];

/** Watches the conditions of the leases of all kernels of this server. */
export class ConditionWatcher extends Disposable {
  constructor(
    private readonly _manager: ILeaseManager,
    private readonly _kernelIds: () => readonly string[],
    private readonly _news: IConditionNews
  ) {
    super();
    _manager.changed.connect(this._update, this);
  }

  private _update(): void {
    if (!this._manager.host) {
      return;
    }
    const current = new Map<string, readonly ICondition[]>();
    for (const lease of ownLeases(this._manager.leases, this._kernelIds())) {
      this._checkConditions(lease, this._before.get(lease.id) ?? []);
      this._checkDevices(lease);
      current.set(lease.id, lease.conditions);
    }
    this._before = current;
  }

  private _checkConditions(lease: ILease, before: readonly ICondition[]): void {
    lease.conditions
      .filter(({ kind }) => NOTIFIED.includes(kind))
      .filter(condition => isNews(condition, before))
      .forEach(condition => this._news.raised(lease, condition));
  }

  private _checkDevices(lease: ILease): void {
    for (const device of this._manager.host?.devices ?? []) {
      const isOnDevice = lease.slices.some(s => s.device_id === device.id);
      const isUnusable = isOnDevice && device.problem !== '';
      const hasFailed = isUnusable && !isToldByLease(lease, device);
      const key = `${lease.id} ${device.id} ${device.problem}`;
      if (hasFailed && !this._failedDevices.has(key)) {
        this._failedDevices.add(key);
        this._news.deviceFailed(lease, device);
      }
    }
  }

  private _before = new Map<string, readonly ICondition[]>();
  private readonly _failedDevices = new Set<string>();
}

/** Whether the conditions of a lease tell of what is wrong with its device, or soon will. */
function isToldByLease(lease: ILease, device: IDevice): boolean {
  const isSick = device.conditions.some(each => each.severity === 'error');
  return isSick || conditionOf(lease, 'DeviceFault') !== null;
}

/** Whether a condition was not there before; memory that has come down from over its bound is no news either. */
function isNews(
  { kind, message }: ICondition,
  before: readonly ICondition[]
): boolean {
  if (FLUCTUATING.includes(kind)) {
    const graver = FLUCTUATING.slice(0, FLUCTUATING.indexOf(kind) + 1);
    return !before.some(condition => graver.includes(condition.kind));
  }
  return !before.some(
    condition => condition.kind === kind && condition.message === message
  );
}
