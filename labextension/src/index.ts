import {
  ILayoutRestorer,
  type JupyterFrontEnd,
  type JupyterFrontEndPlugin
} from '@jupyterlab/application';
import {
  ICommandPalette,
  InputDialog,
  ISessionContextDialogs,
  Notification,
  SessionContextDialogs,
  showDialog
} from '@jupyterlab/apputils';
import { INotebookTracker } from '@jupyterlab/notebook';
import { IRunningSessionManagers } from '@jupyterlab/running';
import { ISettingRegistry } from '@jupyterlab/settingregistry';
import { IStatusBar } from '@jupyterlab/statusbar';
import {
  ITranslator,
  nullTranslator,
  type TranslationBundle
} from '@jupyterlab/translation';

import { LeaseManager } from './api/manager';
import { RestAPI } from './api/restapi';
import { fetchFrom, socketTo } from './api/server';
import { aistackIcon } from './app/icons';
import { CurrentKernel } from './app/kernel';
import { AIStackSettings, IAIStackSettings } from './app/settings';
import { ALL_COMMANDS, CommandIDs } from './commands/base';
import { addCommands } from './commands/lease';
import { panelActions } from './commands/panelactions';
import { restarterOf } from './commands/restartkernel';
import { saverOf } from './commands/savenotebook';
import { ConditionToasts } from './notifications/conditiontoasts';
import { ConditionWatcher } from './notifications/conditionwatcher';
import { NewsToasts } from './notifications/newstoasts';
import { NoticeWatcher } from './notifications/noticewatcher';
import { StrayToasts } from './notifications/straytoasts';
import { StrayWatcher } from './notifications/straywatcher';
import { SuspendToasts } from './notifications/suspendtoasts';
import { SuspendWatcher } from './notifications/suspendwatcher';
import { LeaseWatcher } from './notifications/watcher';
import { LeasePanel, PANEL_ID } from './panel/widget';
import { LeaseIndicator } from './status/indicator';
import { RUNNING_CLASS, RunningLeases } from './status/running';
import { ICurrentKernel, ILeaseManager } from './tokens';
import { messageOf } from './wire/errors';

export * from './tokens';
export { CommandIDs } from './commands/base';

function load(translator: ITranslator | null): TranslationBundle {
  return (translator ?? nullTranslator).load('jupyter_aistack');
}

function report(error: unknown): void {
  Notification.error(messageOf(error), { autoClose: 10_000 });
}

/** Shows what was done, for long enough to undo it. */
function notify(
  message: string,
  trans: TranslationBundle,
  undo?: () => void
): void {
  const actions = undo ? [{ label: trans.__('Undo'), callback: undo }] : [];
  Notification.info(message, { autoClose: undo ? 8_000 : 20_000, actions });
}

function kernelIdsOf(app: JupyterFrontEnd): () => string[] {
  const { kernels } = app.serviceManager;
  return () => Array.from(kernels.running(), ({ id }) => id);
}

/** The lease of the node under the context menu: the AI Stack panel names it as `leaseId`, the running panel as `context`. */
function leaseUnderMouse(app: JupyterFrontEnd): string | null {
  const node = app.contextMenuHitTest(
    ({ classList, dataset }) =>
      dataset.leaseId !== undefined || classList.contains(RUNNING_CLASS)
  );
  return node?.dataset.leaseId ?? node?.dataset.context ?? null;
}

const manager: JupyterFrontEndPlugin<ILeaseManager> = {
  id: 'jupyter-aistack:manager',
  description: 'Knows who holds which slice of the devices of this host.',
  autoStart: true,
  provides: ILeaseManager,
  activate: (app: JupyterFrontEnd): ILeaseManager => {
    const { serverSettings } = app.serviceManager;
    return new LeaseManager({
      api: new RestAPI(fetchFrom(serverSettings)),
      openSocket: socketTo(serverSettings)
    });
  }
};

const kernel: JupyterFrontEndPlugin<ICurrentKernel> = {
  id: 'jupyter-aistack:kernel',
  description: 'Follows the kernel of the notebook in front.',
  autoStart: true,
  provides: ICurrentKernel,
  optional: [INotebookTracker],
  activate: (
    _: JupyterFrontEnd,
    tracker: INotebookTracker | null
  ): ICurrentKernel => new CurrentKernel(tracker)
};

const settings: JupyterFrontEndPlugin<IAIStackSettings> = {
  id: 'jupyter-aistack:settings',
  description: 'Reads what the user has set for slices.',
  autoStart: true,
  provides: IAIStackSettings,
  optional: [ISettingRegistry],
  activate: (
    _: JupyterFrontEnd,
    registry: ISettingRegistry | null
  ): IAIStackSettings => new AIStackSettings(registry, commands.id)
};

const commands: JupyterFrontEndPlugin<void> = {
  id: 'jupyter-aistack:commands',
  description: 'Adds the commands to request, extend and release slices.',
  autoStart: true,
  requires: [ILeaseManager, ICurrentKernel, IAIStackSettings],
  optional: [
    ICommandPalette,
    INotebookTracker,
    ISessionContextDialogs,
    ITranslator
  ],
  activate: (
    app: JupyterFrontEnd,
    manager: ILeaseManager,
    kernel: ICurrentKernel,
    settings: IAIStackSettings,
    palette: ICommandPalette | null,
    tracker: INotebookTracker | null,
    dialogs: ISessionContextDialogs | null,
    translator: ITranslator | null
  ): void => {
    const trans = load(translator);
    const used = translator ?? nullTranslator;
    addCommands({
      commands: app.commands,
      manager,
      kernel,
      trans,
      icon: aistackIcon,
      extendSeconds: () => settings.extendSeconds,
      openPanel: () => app.shell.activateById(PANEL_ID),
      askRequest: async kernelId => {
        const { askRequest } = await import('./request/dialog');
        const spec = settings.defaultSpec;
        return askRequest({ manager, kernelId, spec, trans });
      },
      confirm: async (title, body) => {
        const result = await showDialog({ title, body });
        return result.button.accept;
      },
      ask: async (title, label) => {
        const result = await InputDialog.getText({ title, label });
        return result.button.accept ? (result.value ?? '') : null;
      },
      kernelIds: kernelIdsOf(app),
      leaseUnderMouse: () => leaseUnderMouse(app),
      restarterOf: kernelId =>
        restarterOf(
          dialogs ?? new SessionContextDialogs({ translator: used }),
          tracker,
          kernelId
        ),
      notify: (message, undo) => notify(message, trans, undo),
      report
    });
    const category = trans.__('AI Stack');
    ALL_COMMANDS.forEach(command => palette?.addItem({ command, category }));
  }
};

const panel: JupyterFrontEndPlugin<void> = {
  id: 'jupyter-aistack:panel',
  description: 'Adds the side panel with devices, slices and queue.',
  autoStart: true,
  requires: [ILeaseManager, ICurrentKernel, IAIStackSettings],
  optional: [ILayoutRestorer, ITranslator],
  activate: (
    app: JupyterFrontEnd,
    manager: ILeaseManager,
    kernel: ICurrentKernel,
    settings: IAIStackSettings,
    restorer: ILayoutRestorer | null,
    translator: ITranslator | null
  ): void => {
    const widget = new LeasePanel({
      commands: app.commands,
      extendSeconds: () => settings.extendSeconds,
      kernel,
      manager,
      trans: load(translator)
    });
    app.shell.add(widget, 'left', { rank: 700, type: 'AI Stack' });
    restorer?.add(widget, PANEL_ID);
  }
};

const status: JupyterFrontEndPlugin<void> = {
  id: 'jupyter-aistack:status',
  description: 'Shows the slice of the notebook in front in the status bar.',
  autoStart: true,
  requires: [ILeaseManager, ICurrentKernel],
  optional: [IStatusBar, ITranslator],
  activate: (
    app: JupyterFrontEnd,
    manager: ILeaseManager,
    kernel: ICurrentKernel,
    statusBar: IStatusBar | null,
    translator: ITranslator | null
  ): void => {
    if (!statusBar) {
      return;
    }
    const item = new LeaseIndicator({
      kernel,
      manager,
      onClick: () => void app.commands.execute(CommandIDs.open),
      trans: load(translator)
    });
    statusBar.registerStatusItem(status.id, {
      item,
      align: 'left',
      rank: 3,
      priority: 1
    });
  }
};

const running: JupyterFrontEndPlugin<void> = {
  id: 'jupyter-aistack:running',
  description: 'Lists the slices of the kernels among what runs.',
  autoStart: true,
  requires: [ILeaseManager],
  optional: [IRunningSessionManagers, ITranslator],
  activate: (
    app: JupyterFrontEnd,
    manager: ILeaseManager,
    managers: IRunningSessionManagers | null,
    translator: ITranslator | null
  ): void => {
    managers?.add(
      new RunningLeases({
        icon: aistackIcon,
        kernelIds: kernelIdsOf(app),
        manager,
        open: () => void app.commands.execute(CommandIDs.open),
        release: panelActions(app.commands, manager).release,
        report,
        trans: load(translator)
      })
    );
  }
};

const news: JupyterFrontEndPlugin<void> = {
  id: 'jupyter-aistack:news',
  description:
    'Notifies of a slice that was granted, is about to end, to be reclaimed or to be preempted, or is suspended.',
  autoStart: true,
  requires: [ILeaseManager, ICurrentKernel, IAIStackSettings],
  optional: [INotebookTracker, ITranslator],
  activate: (
    app: JupyterFrontEnd,
    manager: ILeaseManager,
    kernel: ICurrentKernel,
    settings: IAIStackSettings,
    tracker: INotebookTracker | null,
    translator: ITranslator | null
  ): void => {
    const actions = panelActions(app.commands, manager);
    const kernelIds = kernelIdsOf(app);
    const trans = load(translator);
    const toasts = new NewsToasts({
      extend: actions.extend,
      saveOf: kernelId => saverOf(app, tracker, kernelId),
      trans
    });
    new LeaseWatcher(manager, kernel, toasts, () => settings.warnSeconds);
    new NoticeWatcher(manager, kernelIds, toasts);
    const open = (): void => void app.commands.execute(CommandIDs.open);
    const suspendToasts = new SuspendToasts({
      applySuspendAction: actions.applySuspendAction,
      restartOf: kernel_id =>
        app.commands.isEnabled(CommandIDs.restart, { kernel_id })
          ? () => actions.restart(kernel_id)
          : null,
      open,
      shouldExplain: () => settings.explainsSuspend,
      explained: () => settings.hasExplained(),
      trans
    });
    new SuspendWatcher(manager, kernelIds, suspendToasts);
    const conditionToasts = new ConditionToasts({ open, trans });
    new ConditionWatcher(manager, kernelIds, conditionToasts);
    new StrayWatcher(manager, new StrayToasts({ open, trans }));
  }
};

export default [
  manager,
  kernel,
  settings,
  commands,
  panel,
  status,
  running,
  news
];
