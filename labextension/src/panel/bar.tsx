import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import type { ISegment } from './segments';

/** How a device is cut, to look at and to hear. */
export function Bar(props: {
  segments: ISegment[];
  title: string;
  trans: TranslationBundle;
}): JSX.Element {
  const parts = props.segments.map(spoken).join(', ');
  return (
    <div
      className="jp-AIStack-bar"
      role="img"
      aria-label={props.trans.__('%1: %2', props.title, parts)}
    >
      {props.segments.map(part => (
        <span
          key={part.key}
          className={`jp-AIStack-segment jp-mod-${part.kind}`}
          style={{ flexGrow: part.share }}
          title={spoken(part)}
          data-lease-id={part.leaseId}
        >
          {part.label}
        </span>
      ))}
    </div>
  );
}

function spoken(part: ISegment): string {
  return part.text ? `${part.label} ${part.text}` : part.label;
}
