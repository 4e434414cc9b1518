import { LabIcon } from '@jupyterlab/ui-components';

import aistackSvg from '../../style/aistack.svg';

/** A chip cut into slices. */
export const aistackIcon = new LabIcon({
  name: 'jupyter-aistack:chip',
  svgstr: aistackSvg
});
