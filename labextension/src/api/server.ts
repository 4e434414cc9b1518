import { URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';

import type { Fetch } from './restapi';

const NAMESPACE = 'aistack/api/v1';

/** Requests to our routes of that server, with its credentials. */
export function fetchFrom(settings: ServerConnection.ISettings): Fetch {
  const root = URLExt.join(settings.baseUrl, NAMESPACE);
  return async (path, init = {}) => {
    try {
      return await ServerConnection.makeRequest(
        `${root}/${path}`,
        init,
        settings
      );
    } catch (error) {
      // The browser's own message, "Failed to fetch", does not say what to do.
      throw error instanceof ServerConnection.NetworkError
        ? new Error('The Jupyter server does not answer')
        : error;
    }
  };
}

/** Opens sockets to the stream of that server. */
export function socketTo(
  settings: ServerConnection.ISettings
): () => WebSocket {
  const url = URLExt.join(settings.wsUrl, NAMESPACE, 'stream');
  const token =
    settings.appendToken && settings.token
      ? `?token=${encodeURIComponent(settings.token)}`
      : '';
  return () => new settings.WebSocket(url + token);
}
