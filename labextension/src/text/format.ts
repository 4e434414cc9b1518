/** Numbers, names and sizes for people. Pure; symbols of units are international and not translated. */

import type { TranslationBundle } from '@jupyterlab/translation';

import type { IDevice, IHolder, IUse } from '../wire/types';

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];

/** `21474836480` -> `20 GiB`; one decimal below 10, none above. */
export function formatBytes(bytes: number): string {
  const exponent = exponentOf(bytes);
  return `${amount(bytes, exponent)} ${UNITS[exponent]}`;
}

/** `(6657199309, 21474836480)` -> `6.2 / 20 GiB`, both in the unit of the second. */
export function formatBytesOf(used: number, total: number): string {
  const exponent = exponentOf(total);
  return `${amount(used, exponent)} / ${amount(total, exponent)} ${UNITS[exponent]}`;
}

function exponentOf(bytes: number): number {
  let exponent = 0;
  while (exponent < UNITS.length - 1 && bytes >= 1024 ** (exponent + 1)) {
    exponent += 1;
  }
  return exponent;
}

function amount(bytes: number, exponent: number): string {
  const value = bytes / 1024 ** exponent;
  const rounded = value < 10 ? Math.round(value * 10) / 10 : Math.round(value);
  return String(rounded);
}

/** `0.41` -> `41 %`; null stays null, for the caller to say "n/a". */
export function formatPercent(share: number | null): string | null {
  return share === null ? null : `${Math.round(share * 100)} %`;
}

/** `12.34` -> `12 Wh`; from watt-hours, one decimal below 10 of the unit. */
export function formatEnergy(wattHours: number): string {
  const isLarge = wattHours >= 1000;
  const value = isLarge ? wattHours / 1000 : wattHours;
  const rounded = value < 10 ? Math.round(value * 10) / 10 : Math.round(value);
  return `${rounded} ${isLarge ? 'kWh' : 'Wh'}`;
}

/** `2520` -> `42 min`; the two largest units, rounded down; never negative. */
export function formatDuration(seconds: number): string {
  const total = Math.max(0, Math.floor(seconds));
  if (total < 60) {
    return `${total} s`;
  }
  const minutes = Math.floor(total / 60);
  if (minutes < 60) {
    return `${minutes} min`;
  }
  const hours = Math.floor(minutes / 60);
  return hours < 24
    ? join(hours, 'h', minutes % 60, 'min')
    : join(Math.floor(hours / 24), 'd', hours % 24, 'h');
}

/** `250` -> `4 min 10 s`; to the second for ten minutes, like `formatDuration` above. */
export function formatCountdown(seconds: number): string {
  const total = Math.max(0, Math.ceil(seconds));
  return total < 60 || total > 600
    ? formatDuration(total)
    : join(Math.floor(total / 60), 'min', total % 60, 's');
}

function join(a: number, unitA: string, b: number, unitB: string): string {
  return b ? `${a} ${unitA} ${b} ${unitB}` : `${a} ${unitA}`;
}

/** `"1/4"` -> `0.25`; 0 for anything that is not a share. */
export function parseFraction(text: string): number {
  const [above, below = '1'] = text.split('/');
  const value = Number(above) / Number(below);
  return Number.isFinite(value) && value > 0 ? value : 0;
}

/** At most `most` letters, of which the last says that there were more. */
export function truncated(text: string, most: number): string {
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}

/** The notebook's name if there is one, else the kind of holder and its id; the user where the server hides both. */
export function holderName(holder: IHolder): string {
  const base = holder.label.split('/').pop();
  const id = holder.id && `${holder.kind}:${holder.id.slice(0, 8)}`;
  return base || id || holder.user;
}

/** What a device is called, such as "GPU 0". */
export function deviceTitle(device: IDevice, trans: TranslationBundle): string {
  return device.kind === 'gpu'
    ? trans.__('GPU %1', device.index)
    : trans.__('CPU');
}

/** From this share on there is little left; the watchdog of the server warns there, too. */
const NEARLY_FULL = 0.9;

export type Fullness = 'fits' | 'near' | 'over';

/** Whether what is used fits into `total`, both in bytes; what is not known fits. */
export function fullness(used: number | null, total: number): Fullness {
  const isKnown = used !== null && total > 0;
  if (!isKnown || used < total * NEARLY_FULL) {
    return 'fits';
  }
  return used > total ? 'over' : 'near';
}

/** What a slice uses of its memory, and whether that is (nearly) all of it. */
export function sliceMemoryText(
  use: IUse,
  total: number,
  trans: TranslationBundle
): string {
  const text = memoryText(use, total, trans);
  switch (fullness(use.memory_bytes, total)) {
    case 'near':
      return trans.__('%1, nearly full', text);
    case 'over':
      return trans.__('%1, more than granted', text);
    default:
      return text;
  }
}

export function memoryText(
  use: IUse,
  total: number,
  trans: TranslationBundle
): string {
  return use.memory_bytes === null
    ? trans.__('n/a of %1', formatBytes(total))
    : formatBytesOf(use.memory_bytes, total);
}

export function utilisationText(use: IUse, trans: TranslationBundle): string {
  return formatPercent(use.utilization) ?? trans.__('n/a');
}
