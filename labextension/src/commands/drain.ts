import type { CommandRegistry } from '@lumino/commands';

import { mayDrain } from '../text/drain';
import type { IDevice } from '../wire/types';
import { orThrow, schema, text, textArg, type Args } from './args';
import { CommandIDs, guarded, isOnline, type ICommandOptions } from './base';

/** The commands by which operators take devices out of placement, and back. */
export function drainCommands(
  options: ICommandOptions
): Record<string, CommandRegistry.ICommandOptions> {
  const { manager, trans } = options;
  const none = trans.__('There is no such device');
  return {
    [CommandIDs.drain]: {
      label: trans.__('Drain the Device…'),
      caption: trans.__(
        'Grant nothing new on it; what is leased there goes on'
      ),
      describedBy: {
        args: schema({
          device_id: deviceArg(),
          reason: text('Why; without it a dialog asks')
        })
      },
      isEnabled: args => isPossible(options, args),
      execute: guarded(options, async args => {
        const { id } = orThrow(deviceOf(options, args), none);
        const reason = textArg(args, 'reason') ?? (await askReason(options));
        return reason === null ? null : manager.drain(id, reason);
      })
    },
    [CommandIDs.undrain]: {
      label: trans.__('Undrain the Device'),
      caption: trans.__('Let it be granted again'),
      describedBy: { args: schema({ device_id: deviceArg() }) },
      isEnabled: args =>
        isPossible(options, args) && !!deviceOf(options, args)?.drain,
      execute: guarded(options, async args =>
        manager.undrain(orThrow(deviceOf(options, args), none).id)
      )
    }
  };
}

function askReason({ ask, trans }: ICommandOptions): Promise<string | null> {
  return ask(
    trans.__('Drain the device?'),
    trans.__('Why, for those who wait and those who hold a part of it')
  );
}

function isPossible(options: ICommandOptions, args: Args): boolean {
  const { host } = options.manager;
  const isAllowed = host !== null && mayDrain(host);
  return isAllowed && isOnline(options.manager) && !!deviceOf(options, args);
}

/** The device that is named, or the only one there is. */
function deviceOf(options: ICommandOptions, args: Args): IDevice | null {
  const devices = options.manager.host?.devices ?? [];
  const id = textArg(args, 'device_id');
  if (id === null) {
    return devices.length === 1 ? devices[0] : null;
  }
  return devices.find(device => device.id === id) ?? null;
}

function deviceArg(): ReturnType<typeof text> {
  return text('Which device; the only one there is');
}
