import { Notification } from '@jupyterlab/apputils';

import { StrayToasts } from '../../notifications/straytoasts';
import { sampleSnapshot, trans } from '../fakes';

it('names the process and the device, short enough to be read to its end', () => {
  Notification.dismiss();
  const { host } = sampleSnapshot();
  const [stray] = host.strays;
  const long = { ...stray, pid: 1, command: 'python '.repeat(40) };
  const toasts = new StrayToasts({ open: () => undefined, trans });
  toasts.strayed(stray, host.devices[0]);
  toasts.strayed({ ...long, ends_at: null }, undefined);
  const texts = Notification.manager.notifications.map(each => each.message);
  expect(texts[1]).toBe(
    'process 4711 (python train.py) uses GPU 0 without a lease, and is ended soon'
  );
  expect(texts[0]).toMatch(
    /^process 1 \(python .*… uses GPU-5a1f0c3e.*a slice$/
  );
  expect(texts[0].length).toBeLessThanOrEqual(140);
});
