import { Dialog, ReactWidget } from '@jupyterlab/apputils';
import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import type { ILeaseManager } from '../tokens';
import { messageOf } from '../wire/errors';
import type { IRequestBody, IRequested } from '../wire/types';
import { RequestForm, type IRequestValue } from './form';

export interface IRequestDialogOptions {
  manager: ILeaseManager;
  kernelId: string;
  /** What the size is at first. */
  spec: string;
  trans: TranslationBundle;
}

/** Lets the user request a slice; resolves to the answer, or null when the user cancelled. */
export async function askRequest(
  options: IRequestDialogOptions
): Promise<IRequested | null> {
  const result = await new RequestDialog(new RequestBody(options)).launch();
  return result.button.accept ? result.value : null;
}

/** Stays open with the server's reason when a request is refused. */
class RequestDialog extends Dialog<IRequested | null> {
  constructor(private readonly _requestBody: RequestBody) {
    const { trans } = _requestBody.options;
    super({
      title: trans.__('Request a slice'),
      body: _requestBody,
      focusNodeSelector: 'input[name="spec"]',
      buttons: [
        Dialog.cancelButton({ label: trans.__('Cancel') }),
        Dialog.okButton({ label: trans.__('Request') })
      ]
    });
    this.addClass('jp-AIStack-dialog');
  }

  resolve(index = ACCEPT): void {
    if (index !== ACCEPT) {
      super.resolve(index);
      return;
    }
    void this._requestBody.submit().then(isGranted => {
      if (isGranted && !this.isDisposed) {
        super.resolve(index);
      }
    });
  }
}

const ACCEPT = 1;

/** The body with what the user has chosen; the rest is left to the server. */
function bodyOf(value: IRequestValue, kernelId: string): IRequestBody {
  const { isPreemptible, leaseSeconds, queue, spec, upTo } = value;
  return {
    spec: spec.trim(),
    kernel_id: kernelId,
    ...(queue === '' ? {} : { queue }),
    ...(leaseSeconds === null ? {} : { lease_seconds: leaseSeconds }),
    ...(upTo === '' ? {} : { up_to: upTo }),
    ...(isPreemptible ? { preemptible: true } : {})
  };
}

class RequestBody
  extends ReactWidget
  implements Dialog.IBodyWidget<IRequested | null>
{
  constructor(readonly options: IRequestDialogOptions) {
    super();
    this._value = {
      spec: options.spec,
      leaseSeconds: null,
      queue: '',
      upTo: '',
      isPreemptible: false
    };
  }

  getValue(): IRequested | null {
    return this._answer;
  }

  /** Sends the request once; resolves to whether the server took it. */
  async submit(): Promise<boolean> {
    if (this._isBusy) {
      return false;
    }
    this._isBusy = true;
    try {
      this._answer = await this._send();
      return true;
    } catch (error) {
      this._error = messageOf(error);
      this.update();
      return false;
    } finally {
      this._isBusy = false;
    }
  }

  render(): JSX.Element {
    return (
      <RequestForm
        host={this.options.manager.host}
        value={this._value}
        error={this._error}
        trans={this.options.trans}
        onChange={value => {
          this._value = value;
          this._error = '';
          this.update();
        }}
      />
    );
  }

  private _send(): Promise<IRequested> {
    const { kernelId, manager } = this.options;
    return manager.request(bodyOf(this._value, kernelId));
  }

  private _answer: IRequested | null = null;
  private _error = '';
  private _isBusy = false;
  private _value: IRequestValue;
}
