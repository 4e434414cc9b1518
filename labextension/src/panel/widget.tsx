import { ReactWidget } from '@jupyterlab/ui-components';
import type { TranslationBundle } from '@jupyterlab/translation';
import type { CommandRegistry } from '@lumino/commands';
import type { IDisposable } from '@lumino/disposable';
import type { Message } from '@lumino/messaging';
import * as React from 'react';

import { aistackIcon } from '../app/icons';
import { panelActions, type IPanelActions } from '../commands/panelactions';
import type { ICurrentKernel, ILeaseManager } from '../tokens';
import { PanelView } from './view';

export const PANEL_ID = 'jupyter-aistack-panel';

/** The side panel: who holds which slice of the devices of this host. */
export class LeasePanel extends ReactWidget {
  constructor(private readonly _options: LeasePanel.IOptions) {
    super();
    const { kernel, manager, trans } = _options;
    this.id = PANEL_ID;
    this.addClass('jp-AIStack-panel');
    this.title.icon = aistackIcon;
    this.title.caption = trans.__('AI Stack: slices of GPUs and CPUs');
    this.node.setAttribute('role', 'region');
    this.node.setAttribute('aria-label', trans.__('AI Stack'));
    this.node.tabIndex = -1;
    this._actions = panelActions(_options.commands, manager);
    manager.changed.connect(this.update, this);
    kernel.changed.connect(this.update, this);
  }

  dispose(): void {
    if (this.isDisposed) {
      return;
    }
    const { kernel, manager } = this._options;
    manager.changed.disconnect(this.update, this);
    kernel.changed.disconnect(this.update, this);
    this._unwatch();
    super.dispose();
  }

  render(): JSX.Element {
    return (
      <PanelView
        actions={this._actions}
        extendSeconds={this._options.extendSeconds()}
        kernelId={this._options.kernel.id}
        manager={this._options.manager}
        trans={this._options.trans}
      />
    );
  }

  /** Focuses the panel that a command opens, so that Tab goes on from there. */
  protected onActivateRequest(msg: Message): void {
    super.onActivateRequest(msg);
    this.node.focus();
  }

  protected onAfterShow(msg: Message): void {
    super.onAfterShow(msg);
    this._watching ??= this._options.manager.watch();
    this.update();
  }

  protected onBeforeHide(msg: Message): void {
    this._unwatch();
    super.onBeforeHide(msg);
  }

  private _unwatch(): void {
    this._watching?.dispose();
    this._watching = null;
  }

  private readonly _actions: IPanelActions;
  private _watching: IDisposable | null = null;
}

export namespace LeasePanel {
  export interface IOptions {
    commands: CommandRegistry;
    extendSeconds: () => number;
    kernel: ICurrentKernel;
    manager: ILeaseManager;
    trans: TranslationBundle;
  }
}
