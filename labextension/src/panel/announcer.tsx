import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import { conditionTitle, errorsOf } from '../text/condition';
import { positionText } from '../text/lease';
import type { ILeaseManager } from '../tokens';
import type { ILease, INotice } from '../wire/types';

export interface IAnnouncerProps {
  kernelId: string | null;
  manager: ILeaseManager;
  trans: TranslationBundle;
}

/** Tells screen readers what became of the user's own slice, and nothing else: no telemetry, no ticks. */
export function Announcer(props: IAnnouncerProps): JSX.Element {
  return (
    <p className="jp-AIStack-announcer" aria-live="polite">
      {announcement(props)}
    </p>
  );
}

function announcement(props: IAnnouncerProps): string {
  const { kernelId, manager, trans } = props;
  if (!manager.host || !kernelId) {
    return '';
  }
  const lease = manager.leaseOf(kernelId);
  if (lease) {
    return lease.notice
      ? noticeAnnouncement(lease, lease.notice, trans)
      : leaseAnnouncement(lease, trans);
  }
  const request = manager.requestOf(kernelId);
  return request
    ? trans.__('%1: %2', request.spec, positionText(request, trans))
    : trans.__('This notebook has no slice');
}

function noticeAnnouncement(
  { spec }: ILease,
  notice: INotice,
  trans: TranslationBundle
): string {
  return notice.kind === 'idle'
    ? trans.__('The slice %1 is idle; it will be reclaimed', spec)
    : trans.__(
        'The slice %1 is needed by a higher-priority request; it will be preempted',
        spec
      );
}

/** Announces only the states that its user must know of, not HELD and WARM with each cell. */
function leaseAnnouncement(lease: ILease, trans: TranslationBundle): string {
  switch (lease.residence?.standing) {
    case 'suspended':
      return trans.__(
        'The slice %1 is suspended; it comes back when a cell needs it',
        lease.spec
      );
    case 'lost':
      return trans.__(
        'What the slice %1 kept on its device is lost; restart the kernel',
        lease.spec
      );
    default:
      return conditionAnnouncement(lease, trans);
  }
}

/** Without the message, whose figures change all the time. */
function conditionAnnouncement(
  lease: ILease,
  trans: TranslationBundle
): string {
  const [gravest] = errorsOf(lease);
  const title = gravest ? conditionTitle(gravest.kind, trans) : '';
  return title
    ? trans.__('The slice %1 is %2', lease.spec, title)
    : trans.__('This notebook holds a slice: %1', lease.spec);
}
