import { ServerConnection } from '@jupyterlab/services';

import { fetchFrom, socketTo } from '../../api/server';

const opened: string[] = [];

class RecordingSocket {
  constructor(url: string) {
    opened.push(url);
  }
}

function settings(
  more: Partial<ServerConnection.ISettings> = {}
): ServerConnection.ISettings {
  return ServerConnection.makeSettings({
    baseUrl: 'http://127.0.0.1:8888/user/ann/',
    wsUrl: 'ws://127.0.0.1:8888/user/ann/',
    token: 'a b',
    WebSocket: RecordingSocket as unknown as typeof WebSocket,
    ...more
  });
}

it('asks below the base URL, with the credentials of the page', async () => {
  const asked: Request[] = [];
  const fetch = async (input: RequestInfo): Promise<Response> => {
    asked.push(input as Request);
    return new Response('{}');
  };
  await fetchFrom(settings({ fetch }))('leases?all=1');
  const url = new URL(asked[0].url);
  expect(url.origin).toBe('http://127.0.0.1:8888');
  expect(url.pathname).toBe('/user/ann/aistack/api/v1/leases');
  expect(url.searchParams.get('all')).toBe('1');
  expect(asked[0].headers.get('Authorization')).toBe('token a b');
});

it('says in words that nobody answers', async () => {
  const fetch = async (): Promise<Response> => {
    throw new TypeError('Failed to fetch');
  };
  await expect(fetchFrom(settings({ fetch }))('host')).rejects.toThrow(
    'The Jupyter server does not answer'
  );
});

it('puts the token into the URL of the socket only when it must', () => {
  socketTo(settings({ appendToken: true }))();
  socketTo(settings({ appendToken: false }))();
  const url = 'ws://127.0.0.1:8888/user/ann/aistack/api/v1/stream';
  expect(opened).toEqual([`${url}?token=a%20b`, url]);
});
