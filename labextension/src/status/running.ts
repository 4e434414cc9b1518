import type { IRunningSessions } from '@jupyterlab/running';
import type { TranslationBundle } from '@jupyterlab/translation';
import type { LabIcon } from '@jupyterlab/ui-components';
import type { ISignal } from '@lumino/signaling';

import { displayStateLabel } from '../text/devicestate';
import { formatDuration, holderName } from '../text/format';
import { ownLeases } from '../text/ownership';
import type { ILeaseManager } from '../tokens';
import type { ILease } from '../wire/types';

/** By this the context menu knows our items. */
export const RUNNING_CLASS = 'jp-AIStack-running';

/** A section of the panel of what runs: the slices that this server's kernels, and what they started, hold. */
export class RunningLeases implements IRunningSessions.IManager {
  constructor(private readonly _options: RunningLeases.IOptions) {
    const { manager, trans } = _options;
    this.name = trans.__('Slices');
    this.runningChanged = manager.changed;
    this.shutdownLabel = trans.__('Release');
    this.shutdownAllLabel = trans.__('Release All');
    this.shutdownAllConfirmationText = trans.__(
      'Release the slices of all your kernels? What they keep in device memory may be lost.'
    );
  }

  running(): IRunningSessions.IRunningItem[] {
    return this._leases().map(lease => this._item(lease));
  }

  /** Releases each without asking; the user has already confirmed. */
  shutdownAll(): void {
    const { manager, report } = this._options;
    this._leases().forEach(({ id }) => void manager.release(id).catch(report));
  }

  refreshRunning(): void {
    const { manager, report } = this._options;
    manager.refresh().catch(report);
  }

  private _leases(): ILease[] {
    const { kernelIds, manager } = this._options;
    return ownLeases(manager.leases, kernelIds());
  }

  private _item(lease: ILease): IRunningSessions.IRunningItem {
    const { icon, open, release } = this._options;
    return {
      className: RUNNING_CLASS,
      context: lease.id,
      icon: () => icon,
      label: () => holderName(lease.holder),
      labelTitle: () => lease.holder.label || lease.holder.id,
      detail: () => this._detail(lease),
      open,
      shutdown: () => release(lease.id)
    };
  }

  private _detail({ ends_at, residence, spec }: ILease): string {
    const { manager, trans } = this._options;
    return [
      spec,
      residence && displayStateLabel(residence.standing, trans),
      ends_at !== null && formatDuration(ends_at - manager.now())
    ]
      .filter(Boolean)
      .join(' · ');
  }

  readonly name: string;
  readonly runningChanged: ISignal<ILeaseManager, void>;
  readonly shutdownAllConfirmationText: string;
  readonly shutdownAllLabel: string;
  readonly shutdownLabel: string;
}

export namespace RunningLeases {
  export interface IOptions {
    icon: LabIcon;
    /** The kernels that run on this server. */
    kernelIds: () => string[];
    manager: ILeaseManager;
    /** Shows where slices are dealt with. */
    open: () => void;
    /** Releases one slice, after asking where that is due, and reports a failure itself. */
    release: (leaseId: string) => void;
    /** Tells the user what went wrong. */
    report: (error: unknown) => void;
    trans: TranslationBundle;
  }
}
