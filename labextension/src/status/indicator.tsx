import { ReactWidget } from '@jupyterlab/ui-components';
import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import type { ICurrentKernel, ILeaseManager } from '../tokens';
import { statusText } from './text';

/** The item in the status bar: what the notebook in front holds. A click opens the panel. */
export class LeaseIndicator extends ReactWidget {
  constructor(private readonly _options: LeaseIndicator.IOptions) {
    super();
    this.addClass('jp-AIStack-indicator');
    _options.manager.changed.connect(this.update, this);
    _options.kernel.changed.connect(this.update, this);
  }

  dispose(): void {
    if (this.isDisposed) {
      return;
    }
    this._options.manager.changed.disconnect(this.update, this);
    this._options.kernel.changed.disconnect(this.update, this);
    super.dispose();
  }

  render(): JSX.Element {
    const { kernel, manager, trans } = this._options;
    return (
      <button
        className="jp-AIStack-statusItem"
        title={trans.__('The slice of this notebook; opens AI Stack')}
        onClick={this._options.onClick}
      >
        {statusText(manager, kernel.id, trans)}
      </button>
    );
  }
}

export namespace LeaseIndicator {
  export interface IOptions {
    kernel: ICurrentKernel;
    manager: ILeaseManager;
    onClick: () => void;
    trans: TranslationBundle;
  }
}
