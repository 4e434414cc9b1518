import type { IDisposable } from '@lumino/disposable';
import { Signal } from '@lumino/signaling';

/** What can be disposed of, once; all its connections to signals, in and out, end with it. */
export abstract class Disposable implements IDisposable {
  get isDisposed(): boolean {
    return this._isDisposed;
  }

  dispose(): void {
    if (this._isDisposed) {
      return;
    }
    this._isDisposed = true;
    this.onDispose();
    Signal.clearData(this);
  }

  /** Lets go of what is not a signal; called once. */
  protected onDispose(): void {
    // nothing, unless the class holds more
  }

  private _isDisposed = false;
}
