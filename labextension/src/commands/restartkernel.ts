import type { ISessionContextDialogs } from '@jupyterlab/apputils';
import type { INotebookTracker } from '@jupyterlab/notebook';

/** Restarts a kernel, after asking; null when no open notebook has it. */
export function restarterOf(
  dialogs: ISessionContextDialogs,
  tracker: INotebookTracker | null,
  kernelId: string
): (() => Promise<boolean>) | null {
  const panel = tracker?.find(
    ({ sessionContext }) => sessionContext.session?.kernel?.id === kernelId
  );
  // Not the notebook's restart command: it acts on the notebook in front by then, and might restart another kernel.
  return panel ? () => dialogs.restart(panel.sessionContext) : null;
}
