import type { ISessionContext } from '@jupyterlab/apputils';
import type { INotebookTracker } from '@jupyterlab/notebook';

import { restarterOf } from '../../commands/restartkernel';
import { KERNEL } from '../fakes';

const sessionContext = {
  session: { kernel: { id: KERNEL } }
} as unknown as ISessionContext;

const tracker = {
  find: (test: (panel: object) => boolean) =>
    [{ sessionContext }].find(test) ?? undefined
} as unknown as INotebookTracker;

let asked: ISessionContext[];
const dialogs = {
  restart: async (context: ISessionContext) => asked.push(context) > 0,
  selectKernel: async () => undefined
};

beforeEach(() => {
  asked = [];
});

it('restarts the kernel of its own notebook, whatever is in front', async () => {
  await expect(restarterOf(dialogs, tracker, KERNEL)?.()).resolves.toBe(true);
  expect(asked).toEqual([sessionContext]);
});

it('is not to be had where no notebook is open', () => {
  expect(restarterOf(dialogs, tracker, 'another')).toBeNull();
  expect(restarterOf(dialogs, null, KERNEL)).toBeNull();
});
