import { Signal } from '@lumino/signaling';

import { Disposable } from '../../app/disposable';

class Listener extends Disposable {
  calls: string[] = [];
  changed = new Signal<this, void>(this);

  hear(): void {
    this.calls.push('heard');
  }

  protected onDispose(): void {
    this.calls.push(`let go, disposed: ${this.isDisposed}`);
  }
}

it('lets go once', () => {
  const listener = new Listener();
  expect(listener.isDisposed).toBe(false);
  listener.dispose();
  listener.dispose();
  expect(listener.calls).toEqual(['let go, disposed: true']);
});

it('neither hears nor is heard afterwards', () => {
  const sender = { changed: new Signal<object, void>({}) };
  const listener = new Listener();
  let heard = 0;
  sender.changed.connect(listener.hear, listener);
  listener.changed.connect(() => (heard += 1));
  listener.dispose();
  sender.changed.emit();
  listener.changed.emit();
  expect(listener.calls).not.toContain('heard');
  expect(heard).toBe(0);
});
