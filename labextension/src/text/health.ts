/** Texts about the health of a device. */

import type { TranslationBundle } from '@jupyterlab/translation';

import type { Severity } from '../wire/types';
import { formatDuration } from './format';

/** What a condition is about; its code where a newer server knows more kinds. */
export function healthTitle(code: string, trans: TranslationBundle): string {
  switch (code) {
    case 'FellOffBus':
      return trans.__('Fell off the bus');
    case 'RecoveryNeeded':
      return trans.__('Recovery needed');
    case 'XidError':
      return trans.__('Xid error');
    case 'RowRemapFailure':
      return trans.__('Memory row not remapped');
    case 'RowRemapPending':
      return trans.__('Memory row to be remapped');
    case 'PageRetirementPending':
      return trans.__('Memory page to be retired');
    case 'EccUncorrected':
      return trans.__('Memory errors');
    case 'BadPages':
      return trans.__('Too many bad memory pages');
    default:
      return stateTitle(code, trans);
  }
}

/** What is no error of its memory or bus: its supply, its temperature and its clocks. */
function stateTitle(code: string, trans: TranslationBundle): string {
  switch (code) {
    case 'PowerMissing':
      return trans.__('Lacks power');
    case 'InterruptProblem':
      return trans.__('Interrupt problem');
    case 'TemperatureCritical':
      return trans.__('About to switch itself off');
    case 'TemperatureHigh':
      return trans.__('Hot');
    case 'ThermalSlowdown':
      return trans.__('Slowed down by heat');
    case 'PowerBrake':
      return trans.__('Slowed down by its power supply');
    case 'HardwareSlowdown':
      return trans.__('Slowed down by its hardware');
    case 'PowerLimited':
      return trans.__('Power limited');
    case 'EventsMissing':
      return trans.__('Errors are not reported');
    default:
      return code;
  }
}

/** How grave a condition is. */
export function severityTitle(
  severity: Severity,
  trans: TranslationBundle
): string {
  switch (severity) {
    case 'error':
      return trans.__('error');
    case 'warning':
      return trans.__('warning');
    case 'info':
      return trans.__('info');
  }
}

/** Such as "for 3 min". */
export function formatSince(
  since: number,
  now: number,
  trans: TranslationBundle
): string {
  return trans.__('for %1', formatDuration(Math.max(0, now - since)));
}
