import * as React from 'react';

/** Renders the component anew every second, whether or not there is news. */
export function useTick(): void {
  const [, setTick] = React.useState(0);
  React.useEffect(() => {
    const timer = setInterval(() => setTick(tick => tick + 1), 1000);
    return () => clearInterval(timer);
  }, []);
}

/** A text that changes as time passes; empty text is nothing at all. */
export function Ticking(props: {
  className: string;
  /** Seconds since the epoch by the server's clock. */
  clock: () => number;
  text: (now: number) => string;
}): JSX.Element | null {
  useTick();
  const text = props.text(props.clock());
  return text === '' ? null : <p className={props.className}>{text}</p>;
}
