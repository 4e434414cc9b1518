import type { TranslationBundle } from '@jupyterlab/translation';
import type { CommandRegistry } from '@lumino/commands';

import { holderName, truncated } from '../text/format';
import { isOwn } from '../text/ownership';
import {
  actionCaption,
  whyNotAllowed,
  type SuspendAction
} from '../text/suspendaction';
import type { ILease } from '../wire/types';
import {
  flag,
  leaseArg,
  orThrow,
  schema,
  text,
  textArg,
  type Args
} from './args';
import { CommandIDs, guarded, isOnline, type ICommandOptions } from './base';

const UNDO: Record<SuspendAction, SuspendAction> = {
  suspend: 'resume',
  resume: 'suspend',
  pin: 'unpin',
  unpin: 'pin'
};

/** Suspend and resume, pin and unpin; and the way out when the state of a kernel is lost. */
export function suspendCommands(
  options: ICommandOptions
): Record<string, CommandRegistry.ICommandOptions> {
  const { trans } = options;
  return {
    [CommandIDs.suspend]: suspendCommand(
      options,
      'suspend',
      trans.__('Suspend the Slice')
    ),
    [CommandIDs.resume]: suspendCommand(
      options,
      'resume',
      trans.__('Resume the Slice')
    ),
    [CommandIDs.pin]: suspendCommand(
      options,
      'pin',
      trans.__('Pin the Slice to Its Device')
    ),
    [CommandIDs.unpin]: suspendCommand(
      options,
      'unpin',
      trans.__('Unpin the Slice')
    ),
    [CommandIDs.restart]: restartCommand(options)
  };
}

function suspendCommand(
  options: ICommandOptions,
  action: SuspendAction,
  label: string
): CommandRegistry.ICommandOptions {
  const { manager, trans } = options;
  const makesSense = (args: Args): boolean => {
    const lease = ownLease(options, args);
    const why = lease && whyNotAllowed(action, lease, manager.host, trans);
    return isOnline(manager) && why === '';
  };
  return {
    label,
    caption: actionCaption(action, trans),
    describedBy: {
      args: schema({
        lease_id: leaseArg(),
        in_context: flag('The lease under the mouse instead'),
        is_undo: flag('It takes back what was done, and needs no undo itself')
      })
    },
    isEnabled: makesSense,
    isVisible: args =>
      args.in_context === true
        ? makesSense(args)
        : !!ownLease(options, args)?.residence,
    execute: guarded(options, async args => {
      const lease = orThrow(
        ownLease(options, args),
        trans.__('There is no slice of yours')
      );
      const after = await manager.applySuspendAction(lease.id, action);
      if (args.is_undo !== true) {
        notifyDone(options, action, after);
      }
      return after;
    })
  };
}

/** The lease that is meant, if a kernel of this server holds it; others belong to other users. */
function ownLease(options: ICommandOptions, args: Args): ILease | null {
  const lease = addressedLease(options, args);
  if (lease === null) {
    return null;
  }
  const isOfKernel = (id: string): boolean => isOwn(lease.holder, id);
  return options.kernelIds().some(isOfKernel) ? lease : null;
}

/** The lease under the mouse or with the given id, else that of the current kernel. */
function addressedLease(options: ICommandOptions, args: Args): ILease | null {
  const { kernel, manager } = options;
  const isInContext = args.in_context === true;
  const leaseId = isInContext
    ? options.leaseUnderMouse()
    : textArg(args, 'lease_id');
  if (leaseId === null && !isInContext) {
    return kernel.id ? manager.leaseOf(kernel.id) : null;
  }
  return manager.leases.find(({ id }) => id === leaseId) ?? null;
}

function notifyDone(
  options: ICommandOptions,
  action: SuspendAction,
  lease: ILease
): void {
  const { commands, trans } = options;
  const name = truncated(holderName(lease.holder), NAME_LETTERS);
  const undo = CommandIDs[UNDO[action]];
  const args = { lease_id: lease.id, is_undo: true };
  options.notify(doneText(action, name, trans), () => {
    commands.execute(undo, args).catch(() => undefined);
  });
}

/** A notification shows 140 letters. */
const NAME_LETTERS = 30;

function doneText(
  action: SuspendAction,
  name: string,
  trans: TranslationBundle
): string {
  switch (action) {
    case 'suspend':
      return trans.__(
        '%1: its slice is being suspended; it comes back when a cell needs it.',
        name
      );
    case 'resume':
      return trans.__(
        '%1: its slice comes back as soon as there is capacity.',
        name
      );
    case 'pin':
      return trans.__('%1: its slice stays on its device.', name);
    case 'unpin':
      return trans.__('%1: its slice may be suspended while it is idle.', name);
  }
}

function restartCommand(
  options: ICommandOptions
): CommandRegistry.ICommandOptions {
  const { kernel, manager, trans } = options;
  const kernelOf = (args: Args): string | null =>
    textArg(args, 'kernel_id') ?? kernel.id;
  const restarter = (args: Args): (() => Promise<unknown>) | null => {
    const id = kernelOf(args);
    const isLost = !!id && manager.leaseOf(id)?.residence?.standing === 'lost';
    return isLost ? options.restarterOf(id) : null;
  };
  return {
    label: trans.__('Restart the Kernel of the Lost Slice…'),
    caption: trans.__(
      'The kernel begins anew on its slice; what it kept there is gone'
    ),
    describedBy: {
      args: schema({
        kernel_id: text('Which kernel; that of the notebook in front')
      })
    },
    isEnabled: args => restarter(args) !== null,
    isVisible: args => restarter(args) !== null,
    execute: guarded(options, args =>
      orThrow(
        restarter(args),
        trans.__('No open notebook has a kernel whose slice is lost')
      )()
    )
  };
}
