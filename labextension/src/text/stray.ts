/** Processes that use a device without a lease, in words. */

import type { TranslationBundle } from '@jupyterlab/translation';

import type { IStray } from '../wire/types';
import { formatBytes, formatDuration } from './format';

/** `process 4711 (python train.py)`; what is unknown is left out. */
export function strayName(stray: IStray, trans: TranslationBundle): string {
  const pid = stray.pid ?? trans.__('n/a');
  return stray.command
    ? trans.__('process %1 (%2)', pid, stray.command)
    : trans.__('process %1', pid);
}

/** `3 GiB · for 15 min`, and when it will be ended. */
export function strayFigures(
  stray: IStray,
  now: number,
  trans: TranslationBundle
): string {
  const { ends_at, memory_bytes, since } = stray;
  const unknown = trans.__('n/a');
  const memory = memory_bytes === null ? unknown : formatBytes(memory_bytes);
  const age = since === null ? unknown : formatDuration(now - since);
  const parts = [memory, trans.__('for %1', age)];
  if (ends_at !== null) {
    parts.push(trans.__('will be ended in %1', formatDuration(ends_at - now)));
  }
  return parts.join(' · ');
}
