import type { SuspendAction } from '../text/suspendaction';
import type { Decoder } from '../wire/decoders';
import { AIStackError } from '../wire/errors';
import type {
  IUsageSummary,
  IDevice,
  IEvent,
  IHost,
  IHosts,
  ILease,
  IRequest,
  IRequestBody,
  IRequested,
  ISnapshot,
  IUsage
} from '../wire/types';
import * as validate from '../wire/validate';

/** Sends a request to a path below `aistack/api/v1/`, with the credentials of the page. */
export type Fetch = (path: string, init?: RequestInit) => Promise<Response>;

/** One method per route of the server; every answer is checked, every error typed. */
export class RestAPI {
  constructor(private readonly _fetch: Fetch) {}

  host(): Promise<IHost> {
    return this._call('host', validate.host);
  }

  /** All hosts that share the ledger of this host. */
  hosts(): Promise<IHosts> {
    return this._call('hosts', validate.hosts);
  }

  /** Live leases of this host; with `all`, ended ones too. */
  async leases(all = false): Promise<ILease[]> {
    const path = all ? 'leases?all=1' : 'leases';
    return (await this._call(path, validate.leases)).leases;
  }

  async queue(): Promise<IRequest[]> {
    return (await this._call('queue', validate.queue)).queue;
  }

  usage(): Promise<IUsage> {
    return this._call('usage', validate.usage);
  }

  /** Events with a sequence number above `after`, oldest first. */
  async events(after = 0): Promise<IEvent[]> {
    return (await this._call(`events?after=${after}`, validate.events)).events;
  }

  /** What a kernel has used, as recorded by the server. */
  usageSummary(kernelId: string): Promise<IUsageSummary> {
    const path = `bill?kernel_id=${encodeURIComponent(kernelId)}`;
    return this._call(path, validate.usageSummary);
  }

  request(body: IRequestBody): Promise<IRequested> {
    return this._call('leases', validate.requested, 'POST', body);
  }

  release(leaseId: string): Promise<ILease> {
    const path = `leases/${encodeURIComponent(leaseId)}`;
    return this._call(path, validate.lease, 'DELETE');
  }

  /** Moves the end of a lease `seconds` further away. */
  extend(leaseId: string, seconds: number): Promise<ILease> {
    const path = `leases/${encodeURIComponent(leaseId)}/extend`;
    return this._call(path, validate.lease, 'POST', { seconds });
  }

  /** Suspends, resumes, pins or unpins the device state of a lease. */
  applySuspendAction(leaseId: string, action: SuspendAction): Promise<ILease> {
    const path = `leases/${encodeURIComponent(leaseId)}/${action}`;
    return this._call(path, validate.lease, 'POST', {});
  }

  cancel(requestId: string): Promise<IRequest> {
    const path = `queue/${encodeURIComponent(requestId)}`;
    return this._call(path, validate.request, 'DELETE');
  }

  /** Has nothing new granted on a device. */
  drain(deviceId: string, reason: string): Promise<IDevice> {
    const path = `devices/${encodeURIComponent(deviceId)}/drain`;
    return this._call(path, validate.device, 'POST', { reason });
  }

  undrain(deviceId: string): Promise<IDevice> {
    const path = `devices/${encodeURIComponent(deviceId)}/drain`;
    return this._call(path, validate.device, 'DELETE');
  }

  /** What the stream would send, put together from four requests. */
  async snapshot(): Promise<ISnapshot> {
    const [host, leases, queue, usage] = await Promise.all([
      this.host(),
      this.leases(),
      this.queue(),
      this.usage()
    ]);
    return { host, leases, queue, usage };
  }

  private async _call<T>(
    path: string,
    decode: Decoder<T>,
    method = 'GET',
    body?: object
  ): Promise<T> {
    const init: RequestInit = { method };
    if (body) {
      init.body = JSON.stringify(body);
    }
    const response = await this._fetch(path, init);
    const data = await readJSON(response);
    if (!response.ok) {
      throw errorFrom(response, data);
    }
    return decode(data, '');
  }
}

async function readJSON(response: Response): Promise<unknown> {
  const body = await response.text();
  try {
    return JSON.parse(body);
  } catch {
    return body;
  }
}

/** Our own error when the body is one; else one with the status of the web server or proxy. */
function errorFrom(response: Response, data: unknown): AIStackError {
  try {
    return AIStackError.from(validate.error(data, ''), response.status);
  } catch {
    const status = `${response.status} ${response.statusText}`.trim();
    const hint =
      response.status === 404
        ? 'is the server extension jupyter_aistack enabled?'
        : 'see the log of the Jupyter server';
    return new AIStackError(
      'HTTP',
      `The server answered ${status}; ${hint}`,
      {},
      response.status
    );
  }
}
