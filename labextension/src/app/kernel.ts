import type { ISessionContext } from '@jupyterlab/apputils';
import type { INotebookTracker, NotebookPanel } from '@jupyterlab/notebook';
import { Signal, type ISignal } from '@lumino/signaling';

import type { ICurrentKernel } from '../tokens';
import { Disposable } from './disposable';

/** Follows the notebook in front and its kernel; without a tracker there is none. */
export class CurrentKernel extends Disposable implements ICurrentKernel {
  constructor(private readonly _tracker: INotebookTracker | null) {
    super();
    _tracker?.currentChanged.connect(this._onNotebook, this);
    this._onNotebook();
  }

  get id(): string | null {
    return this._session?.session?.kernel?.id ?? null;
  }

  get path(): string {
    return this._session?.path ?? '';
  }

  get changed(): ISignal<ICurrentKernel, void> {
    return this._changed;
  }

  protected onDispose(): void {
    this._follow(null);
  }

  private _onNotebook(): void {
    const panel: NotebookPanel | null = this._tracker?.currentWidget ?? null;
    this._follow(panel?.sessionContext ?? null);
    this._changed.emit();
  }

  private _follow(session: ISessionContext | null): void {
    this._session?.kernelChanged.disconnect(this._onKernel, this);
    this._session?.disposed.disconnect(this._onClosed, this);
    this._session = session;
    session?.kernelChanged.connect(this._onKernel, this);
    session?.disposed.connect(this._onClosed, this);
  }

  private _onKernel(): void {
    this._changed.emit();
  }

  private _onClosed(): void {
    this._follow(null);
    this._changed.emit();
  }

  private _changed = new Signal<ICurrentKernel, void>(this);
  private _session: ISessionContext | null = null;
}
