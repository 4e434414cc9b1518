import type { JupyterFrontEnd } from '@jupyterlab/application';
import type { INotebookTracker } from '@jupyterlab/notebook';

/** Saves the notebook of a kernel; null when no open notebook has it. */
export function saverOf(
  app: JupyterFrontEnd,
  tracker: INotebookTracker | null,
  kernelId: string
): (() => void) | null {
  const panel = tracker?.find(
    ({ sessionContext }) => sessionContext.session?.kernel?.id === kernelId
  );
  if (!panel) {
    return null;
  }
  return () => {
    // The command knows what to ask and to say, but only of what is in front; the context reports its failures, too.
    const saved: Promise<unknown> =
      app.shell.currentWidget === panel
        ? app.commands.execute('docmanager:save')
        : panel.context.save();
    saved.catch(error => console.warn('Notebook not saved:', error));
  };
}
