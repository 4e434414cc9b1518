/** What commands are called, what they need, and how they fail. */

import type { TranslationBundle } from '@jupyterlab/translation';
import type { CommandRegistry } from '@lumino/commands';

import type { ICurrentKernel, ILeaseManager } from '../tokens';
import type { IRequested } from '../wire/types';
import type { Args } from './args';

/** The ids of all commands. */
export namespace CommandIDs {
  export const open = 'jupyter-aistack:open';
  export const request = 'jupyter-aistack:request';
  export const release = 'jupyter-aistack:release';
  export const extend = 'jupyter-aistack:extend';
  export const suspend = 'jupyter-aistack:suspend';
  export const resume = 'jupyter-aistack:resume';
  export const pin = 'jupyter-aistack:pin';
  export const unpin = 'jupyter-aistack:unpin';
  export const restart = 'jupyter-aistack:restart';
  export const cancel = 'jupyter-aistack:cancel';
  export const drain = 'jupyter-aistack:drain';
  export const undrain = 'jupyter-aistack:undrain';
  export const refresh = 'jupyter-aistack:refresh';
}

export const ALL_COMMANDS: readonly string[] = Object.values(CommandIDs);

/** What the commands need of the application; the rest of this file knows nothing of it. */
export interface ICommandOptions {
  commands: CommandRegistry;
  manager: ILeaseManager;
  kernel: ICurrentKernel;
  trans: TranslationBundle;
  icon?: CommandRegistry.ICommandOptions['icon'];
  /** By how much Extend moves the end, in seconds, where the command does not say. */
  extendSeconds: () => number;
  openPanel: () => void;
  /** Lets the user fill in a request for that kernel. */
  askRequest: (kernelId: string) => Promise<IRequested | null>;
  /** Asks whether to go on; resolves to the answer. */
  confirm: (title: string, question: string) => Promise<boolean>;
  /** Asks for a text; null when the user has thought better of it. */
  ask: (title: string, label: string) => Promise<string | null>;
  /** The kernels of this server; what they and their workers hold is the user's own. */
  kernelIds: () => readonly string[];
  /** The lease at which the context menu was opened; null for none. */
  leaseUnderMouse: () => string | null;
  /** Restarts a kernel, after asking; null when no open notebook has it. */
  restarterOf: (kernelId: string) => (() => Promise<unknown>) | null;
  /** Notifies the user of what was done or is advised, with a way to undo it. */
  notify: (message: string, undo?: () => void) => void;
  /** Notifies the user of a failure. */
  report: (error: unknown) => void;
}

/** Data that is fresh enough to act upon. */
export function isOnline(manager: ILeaseManager): boolean {
  return manager.status === 'connected' || manager.status === 'polling';
}

/** Reports a failure to the user, and passes it on to whatever ran the command. */
export function guarded<T>(
  options: ICommandOptions,
  run: (args: Args) => Promise<T>
): (args: Args) => Promise<T> {
  return async args => {
    try {
      return await run(args);
    } catch (error) {
      options.report(error);
      throw error;
    }
  };
}
