import type { CommandRegistry } from '@lumino/commands';
import {
  DisposableDelegate,
  DisposableSet,
  type IDisposable
} from '@lumino/disposable';

import { formatDuration } from '../text/format';
import { canExtend } from '../text/notice';
import type { IRequestBody } from '../wire/types';
import {
  flag,
  leaseArg,
  orThrow,
  number,
  numberArg,
  schema,
  text,
  textArg,
  type Args
} from './args';
import {
  ALL_COMMANDS,
  CommandIDs,
  guarded,
  isOnline,
  type ICommandOptions
} from './base';
import { drainCommands } from './drain';
import { suspendCommands } from './suspend';

/** Adds the commands; dispose the result to remove them. */
export function addCommands(options: ICommandOptions): IDisposable {
  const added = new DisposableSet();
  const { commands, manager, kernel } = options;
  for (const [id, command] of Object.entries(describe(options))) {
    added.add(commands.addCommand(id, command));
  }
  const notify = (): void =>
    ALL_COMMANDS.forEach(id => commands.notifyCommandChanged(id));
  manager.changed.connect(notify);
  kernel.changed.connect(notify);
  added.add(
    new DisposableDelegate(() => {
      manager.changed.disconnect(notify);
      kernel.changed.disconnect(notify);
    })
  );
  return added;
}

function describe(
  options: ICommandOptions
): Record<string, CommandRegistry.ICommandOptions> {
  const { manager, trans } = options;
  return {
    [CommandIDs.open]: {
      label: trans.__('Open AI Stack'),
      caption: trans.__('Show who holds which slice of the devices'),
      icon: options.icon,
      describedBy: { args: schema({}) },
      execute: () => options.openPanel()
    },
    [CommandIDs.request]: requestCommand(options),
    [CommandIDs.release]: releaseCommand(options),
    [CommandIDs.extend]: extendCommand(options),
    ...suspendCommands(options),
    ...drainCommands(options),
    [CommandIDs.cancel]: cancelCommand(options),
    [CommandIDs.refresh]: {
      label: trans.__('Refresh AI Stack'),
      caption: trans.__('Fetch devices, slices and queue anew'),
      describedBy: { args: schema({}) },
      execute: guarded(options, () => manager.refresh())
    }
  };
}

function requestCommand(
  options: ICommandOptions
): CommandRegistry.ICommandOptions {
  const { manager, kernel, trans } = options;
  const kernelOf = (args: Args): string | null =>
    textArg(args, 'kernel_id') ?? kernel.id;
  const isFree = (id: string | null): boolean =>
    !!id && !manager.leaseOf(id) && !manager.requestOf(id);
  return {
    label: trans.__('Request a Slice…'),
    caption: trans.__('Request a slice of a device for a kernel'),
    icon: options.icon,
    describedBy: {
      args: schema({
        spec: text('How much, e.g. "1/4", "20GiB"; without it a dialog asks'),
        kernel_id: text('For which kernel; that of the notebook in front'),
        queue: text('In which queue to wait; that of the user'),
        up_to: text(
          'Share of each device it may use while nobody else needs it, e.g. "1/1"'
        ),
        lease_seconds: number('For how long at most; without it, no end'),
        preemptible: flag('Whether higher-priority requests may preempt it')
      })
    },
    isEnabled: args => isOnline(manager) && isFree(kernelOf(args)),
    execute: guarded(options, async args => {
      const id = orThrow(kernelOf(args), trans.__('There is no kernel'));
      const spec = textArg(args, 'spec');
      const answer = spec
        ? await manager.request(bodyOf(spec, id, args))
        : await options.askRequest(id);
      if (answer?.advice) {
        options.notify(answer.advice);
      }
      return answer;
    })
  };
}

function bodyOf(spec: string, kernelId: string, args: Args): IRequestBody {
  const body: IRequestBody = { spec, kernel_id: kernelId };
  const queue = textArg(args, 'queue');
  const seconds = numberArg(args, 'lease_seconds');
  const upTo = textArg(args, 'up_to');
  return {
    ...body,
    ...(queue === null ? {} : { queue }),
    ...(seconds === null ? {} : { lease_seconds: seconds }),
    ...(upTo === null ? {} : { up_to: upTo }),
    ...(args.preemptible === true ? { preemptible: true } : {})
  };
}

function releaseCommand(
  options: ICommandOptions
): CommandRegistry.ICommandOptions {
  const { manager, trans } = options;
  return {
    label: trans.__('Release the Slice'),
    caption: trans.__('Give the slice of the current kernel back'),
    describedBy: { args: schema({ lease_id: leaseArg() }) },
    isEnabled: args => isOnline(manager) && leaseId(options, args) !== null,
    execute: guarded(options, async args => {
      const id = orThrow(leaseId(options, args), trans.__('There is no slice'));
      return (await mayRelease(options)) ? manager.release(id) : null;
    })
  };
}

/** Asks only where the user has something to lose: when others wait, the slice will not come back soon. */
async function mayRelease(options: ICommandOptions): Promise<boolean> {
  const { manager, trans } = options;
  const waiting = manager.queue.length;
  if (waiting === 0) {
    return true;
  }
  return options.confirm(
    trans.__('Release the slice?'),
    trans._n(
      '%1 request waits. It may be given your slice at once.',
      '%1 requests wait. They may be given your slice at once.',
      waiting
    )
  );
}

function extendCommand(
  options: ICommandOptions
): CommandRegistry.ICommandOptions {
  const { manager, trans } = options;
  const isExtendable = (id: string | null): boolean =>
    manager.leases.some(lease => lease.id === id && canExtend(lease));
  return {
    label: trans.__('Extend the Slice'),
    caption: () =>
      trans.__(
        'Keep the slice of the current kernel for %1 more',
        formatDuration(options.extendSeconds())
      ),
    describedBy: {
      args: schema({
        lease_id: leaseArg(),
        seconds: number('By how much; as set in the settings')
      })
    },
    isEnabled: args =>
      isOnline(manager) && isExtendable(leaseId(options, args)),
    execute: guarded(options, async args => {
      const id = orThrow(leaseId(options, args), trans.__('There is no slice'));
      const seconds = numberArg(args, 'seconds') ?? options.extendSeconds();
      return manager.extend(id, seconds);
    })
  };
}

function cancelCommand(
  options: ICommandOptions
): CommandRegistry.ICommandOptions {
  const { manager, kernel, trans } = options;
  const requestId = (args: Args): string | null =>
    textArg(args, 'request_id') ??
    (kernel.id ? (manager.requestOf(kernel.id)?.id ?? null) : null);
  return {
    label: trans.__('Cancel the Request'),
    caption: trans.__('Stop waiting for a slice'),
    describedBy: {
      args: schema({
        request_id: text('Which request; that of the current kernel')
      })
    },
    isEnabled: args => isOnline(manager) && requestId(args) !== null,
    execute: guarded(options, async args =>
      manager.cancel(orThrow(requestId(args), trans.__('Nothing waits')))
    )
  };
}

function leaseId(options: ICommandOptions, args: Args): string | null {
  const { manager, kernel } = options;
  const own = kernel.id ? manager.leaseOf(kernel.id) : null;
  return textArg(args, 'lease_id') ?? own?.id ?? null;
}
