/** Texts about the conditions of a lease: what its user should know, gravest first. */

import type { TranslationBundle } from '@jupyterlab/translation';

import type { ConditionKind, ICondition, ILease } from '../wire/types';

/** The condition of a kind; null where there is none. */
export function conditionOf(
  lease: ILease,
  kind: ConditionKind
): ICondition | null {
  return lease.conditions.find(condition => condition.kind === kind) ?? null;
}

/** The conditions that must not be overlooked, gravest first. */
export function errorsOf(lease: ILease): ICondition[] {
  return lease.conditions.filter(({ severity }) => severity === 'error');
}

/** What a kind is called before its message, or alone; empty where the message says it all. */
export function conditionTitle(
  kind: ConditionKind,
  trans: TranslationBundle
): string {
  const titles: Record<ConditionKind, string> = {
    DeviceUnhealthy: trans.__('on a sick GPU'),
    DeviceFault: trans.__('on a GPU that failed'),
    MemoryExceeded: trans.__('over its memory'),
    NotEnforced: trans.__('not enforced'),
    LimitLowered: trans.__('above its lowered limit'),
    MemoryPressure: trans.__('near its memory'),
    MemoryUnknown: trans.__('memory unknown'),
    NotVerified: trans.__('could not be verified'),
    LimitPending: trans.__('another limit'),
    EnforcementReduced: trans.__('enforced at a lower level than available'),
    DeviceDrained: '',
    Failed: '',
    Note: ''
  };
  return titles[kind];
}

/** The condition as a sentence. */
export function conditionText(
  { kind, message }: ICondition,
  trans: TranslationBundle
): string {
  const title = conditionTitle(kind, trans);
  const parts = [title, message].filter(Boolean);
  return capitalized(parts.join(': '));
}

function capitalized(sentence: string): string {
  return sentence.charAt(0).toUpperCase() + sentence.slice(1);
}
