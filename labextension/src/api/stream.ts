import { Poll } from '@lumino/polling';

import { Disposable } from '../app/disposable';
import type { ConnectionStatus } from '../tokens';
import { shape, text } from '../wire/decoders';
import { messageOf } from '../wire/errors';
import type { ISnapshot } from '../wire/types';
import { snapshot, streamError } from '../wire/validate';

/** Failures in a row after which we no longer wait for the socket and poll. */
export const FAILURES_BEFORE_POLLING = 2;

/** A socket that has been silent for so long is taken for dead (the server sends at least every 5 s). */
export const SILENCE_MS = 20_000;

const FIRST_RETRY_MS = 1_000;
const LONGEST_RETRY_MS = 60_000;
const POLL_MS = 5_000;
const LONGEST_POLL_MS = 60_000;

/** How long to wait before attempt `failures + 1`; doubles, up to a minute, with up to a fifth taken off at random. */
export function retryDelay(failures: number, random = Math.random()): number {
  const doubled = FIRST_RETRY_MS * 2 ** Math.max(0, failures - 1);
  return Math.min(doubled, LONGEST_RETRY_MS) * (1 - 0.2 * random);
}

const envelope = shape<{ type: string }>({ type: text });

/**
 * Brings snapshots: by WebSocket, and by polling while that does not work.
 *
 * It tries the socket for ever, ever more slowly, and returns to it as soon as it answers.
 */
export class SnapshotStream extends Disposable {
  constructor(private readonly _options: SnapshotStream.IOptions) {
    super();
    this._poll = new Poll({
      name: 'jupyter-aistack:snapshot',
      auto: false,
      factory: () => this._fetch(),
      frequency: { interval: POLL_MS, backoff: true, max: LONGEST_POLL_MS },
      standby: 'when-hidden'
    });
  }

  protected onDispose(): void {
    clearTimeout(this._timer);
    this._poll.dispose();
    this._drop();
  }

  /** Opens the socket; called again (a Retry button, say), it starts afresh. */
  start(): void {
    this._failures = 0;
    void this._poll.stop();
    this._open();
  }

  /** Seconds between snapshots that the server is asked for. */
  setInterval(seconds: 1 | 5): void {
    this._interval = seconds;
    if (this._isOpen) {
      this._socket?.send(JSON.stringify({ interval: seconds }));
    }
  }

  private _open(): void {
    clearTimeout(this._timer);
    this._drop();
    let socket: WebSocket;
    try {
      socket = this._options.open();
    } catch (error) {
      this._fail(error);
      return;
    }
    this._socket = socket;
    socket.onopen = () => {
      this._isOpen = true;
      this.setInterval(this._interval);
    };
    socket.onmessage = message => this._receive(message.data);
    // An error is always followed by a close, which carries what little is known.
    socket.onclose = event =>
      this._fail(new Error(event.reason || 'The connection was closed'));
    this._watch();
  }

  private _receive(data: unknown): void {
    try {
      const message: unknown = JSON.parse(String(data));
      const { type } = envelope(message, '');
      if (type === 'error') {
        // The server is there but cannot say; it will go on trying.
        const { error } = streamError(message, '');
        this._watch();
        this._options.onStatus('disconnected', error.message);
        return;
      }
      if (type !== 'snapshot') {
        return;
      }
      this._options.onSnapshot(snapshot(message, ''));
    } catch (error) {
      this._fail(error);
      return;
    }
    this._failures = 0;
    this._hasReceived = true;
    void this._poll.stop();
    this._options.onStatus('connected');
    this._watch();
  }

  /** Restarts the count towards `SILENCE_MS`. */
  private _watch(): void {
    clearTimeout(this._timer);
    this._timer = setTimeout(
      () => this._fail(new Error('The server has been silent')),
      SILENCE_MS
    );
  }

  private _fail(error: unknown): void {
    clearTimeout(this._timer);
    this._drop();
    this._failures += 1;
    if (this._failures === FAILURES_BEFORE_POLLING) {
      void this._poll.refresh();
    } else if (this._failures < FAILURES_BEFORE_POLLING && this._hasReceived) {
      this._options.onStatus('disconnected', messageOf(error));
    }
    this._timer = setTimeout(() => this._open(), retryDelay(this._failures));
  }

  private async _fetch(): Promise<void> {
    try {
      const fetched = await this._options.fetch();
      if (this.isDisposed || this._failures < FAILURES_BEFORE_POLLING) {
        return; // the socket came back meanwhile and knows better
      }
      this._options.onSnapshot(fetched);
      this._options.onStatus('polling');
    } catch (error) {
      if (!this.isDisposed) {
        this._options.onStatus('disconnected', messageOf(error));
      }
      throw error; // the poll backs off
    }
  }

  private _drop(): void {
    const socket = this._socket;
    this._socket = null;
    this._isOpen = false;
    if (socket) {
      socket.onopen = null;
      socket.onmessage = null;
      socket.onclose = null;
      socket.close();
    }
  }

  private _failures = 0;
  private _hasReceived = false;
  private _interval: 1 | 5 = 5;
  private _isOpen = false;
  private _poll: Poll;
  private _socket: WebSocket | null = null;
  private _timer: ReturnType<typeof setTimeout> | undefined;
}

export namespace SnapshotStream {
  export interface IOptions {
    /** Opens a new socket; may throw. */
    open: () => WebSocket;
    /** Fetches a snapshot by REST. */
    fetch: () => Promise<ISnapshot>;
    onSnapshot: (snapshot: ISnapshot) => void;
    onStatus: (status: ConnectionStatus, problem?: string) => void;
  }
}
