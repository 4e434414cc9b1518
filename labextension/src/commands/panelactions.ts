import type { CommandRegistry } from '@lumino/commands';

import type { SuspendAction } from '../text/suspendaction';
import type { ILeaseManager } from '../tokens';
import { CommandIDs } from './base';

/** What the buttons of the panel do. */
export interface IPanelActions {
  request: () => void;
  release: (leaseId: string) => void;
  extend: (leaseId: string) => void;
  applySuspendAction: (leaseId: string, action: SuspendAction) => void;
  restart: (kernelId: string) => void;
  cancel: (requestId: string) => void;
  drain: (deviceId: string) => void;
  undrain: (deviceId: string) => void;
  refresh: () => void;
  retry: () => void;
}

/** The buttons run the commands, which report their failures themselves. */
export function panelActions(
  commands: CommandRegistry,
  manager: ILeaseManager
): IPanelActions {
  const run = (id: string, args: Record<string, string> = {}): void => {
    commands.execute(id, args).catch(() => undefined);
  };
  return {
    request: () => run(CommandIDs.request),
    release: lease_id => run(CommandIDs.release, { lease_id }),
    extend: lease_id => run(CommandIDs.extend, { lease_id }),
    applySuspendAction: (lease_id, action) =>
      run(CommandIDs[action], { lease_id }),
    restart: kernel_id => run(CommandIDs.restart, { kernel_id }),
    cancel: request_id => run(CommandIDs.cancel, { request_id }),
    drain: device_id => run(CommandIDs.drain, { device_id }),
    undrain: device_id => run(CommandIDs.undrain, { device_id }),
    refresh: () => run(CommandIDs.refresh),
    retry: () => manager.reconnect()
  };
}
