import type { JupyterFrontEnd } from '@jupyterlab/application';
import type { INotebookTracker, NotebookPanel } from '@jupyterlab/notebook';

import { saverOf } from '../../commands/savenotebook';
import { KERNEL } from '../fakes';

let app: JupyterFrontEnd;
let done: string[];
let front: unknown;
let panel: NotebookPanel;
let tracker: INotebookTracker;

beforeEach(() => {
  done = [];
  front = null;
  panel = {
    context: { save: async () => done.push('context') },
    sessionContext: { session: { kernel: { id: KERNEL } } }
  } as unknown as NotebookPanel;
  tracker = {
    find: (test: (panel: NotebookPanel) => boolean) =>
      test(panel) ? panel : undefined
  } as unknown as INotebookTracker;
  app = {
    commands: { execute: async (id: string) => done.push(id) },
    shell: {
      get currentWidget() {
        return front;
      }
    }
  } as unknown as JupyterFrontEnd;
});

it('saves the notebook in front as the menu does', () => {
  front = panel;
  saverOf(app, tracker, KERNEL)?.();
  expect(done).toEqual(['docmanager:save']);
});

it('saves one in the background, and not the one in front', () => {
  saverOf(app, tracker, KERNEL)?.();
  expect(done).toEqual(['context']);
});

it('is not offered where no notebook has the kernel', () => {
  expect(saverOf(app, tracker, 'another')).toBeNull();
  expect(saverOf(app, null, KERNEL)).toBeNull();
});
