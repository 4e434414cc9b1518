import type { INotebookTracker } from '@jupyterlab/notebook';
import { Signal } from '@lumino/signaling';

import { CurrentKernel } from '../../app/kernel';

/** As much of a notebook's session as is followed. */
class FakeSession {
  constructor(id: string | null) {
    this.session = id ? { kernel: { id } } : null;
  }

  session: { kernel: { id: string } | null } | null;
  path = 'work/tour.ipynb';
  kernelChanged = new Signal<this, void>(this);
  disposed = new Signal<this, void>(this);
}

class FakeTracker {
  currentWidget: { sessionContext: FakeSession } | null = null;
  currentChanged = new Signal<this, void>(this);

  show(session: FakeSession | null): void {
    this.currentWidget = session && { sessionContext: session };
    this.currentChanged.emit();
  }
}

let changes: number;
let kernel: CurrentKernel;
let tracker: FakeTracker;

beforeEach(() => {
  tracker = new FakeTracker();
  kernel = new CurrentKernel(tracker as unknown as INotebookTracker);
  changes = 0;
  kernel.changed.connect(() => (changes += 1));
});

it('is none without a notebook, or a tracker', () => {
  expect(kernel.id).toBeNull();
  const alone = new CurrentKernel(null);
  expect(alone.id).toBeNull();
  alone.dispose();
});

it('follows the notebook in front', () => {
  tracker.show(new FakeSession('k-1'));
  expect([kernel.id, kernel.path]).toEqual(['k-1', 'work/tour.ipynb']);
  tracker.show(null);
  expect(kernel.id).toBeNull();
  expect(changes).toBe(2);
});

it('follows the kernel of the notebook', () => {
  const session = new FakeSession(null);
  tracker.show(session);
  expect(kernel.id).toBeNull();
  session.session = { kernel: { id: 'k-2' } };
  session.kernelChanged.emit();
  expect(kernel.id).toBe('k-2');
  expect(changes).toBe(2);
});

it('forgets the notebook before, and one that is closed', () => {
  const [first, second] = [new FakeSession('k-1'), new FakeSession('k-2')];
  tracker.show(first);
  tracker.show(second);
  first.kernelChanged.emit();
  expect(changes).toBe(2);
  second.disposed.emit();
  expect(kernel.id).toBeNull();
});

it('follows nothing once disposed', () => {
  const session = new FakeSession('k-1');
  tracker.show(session);
  kernel.dispose();
  session.kernelChanged.emit();
  tracker.show(new FakeSession('k-2'));
  expect(kernel.id).toBeNull();
  expect(changes).toBe(1);
});
