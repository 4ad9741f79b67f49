"""Environments in separate processes, with timeouts and with their errors reported in this process."""

import multiprocessing
import warnings
from collections.abc import Callable
from functools import partial
from multiprocessing import connection
from signal import Signals
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, VectorEnv

from nexus.core.errors import EnvError
from nexus.envs.checks import Fault, describe_error, misshapen
from nexus.envs.episodes import ACTIONS_OPTION

__all__ = ["Reporter", "Workers", "close_env"]

FAULT = "nexus_fault"  # a key of info
EXIT_TIMEOUT = 2.0  # seconds for processes to end before they are killed, and again for them to exit after that


class Reporter(gym.Wrapper[Any, Any, Any, Any]):
    """Reports errors in `info`: not every error can be sent to another process, and shared memory would silently
    accept an observation of the wrong shape or dtype.
    """

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset, or report why that failed."""
        try:
            observation, info = self.env.reset(seed=seed, options=options)
            return self._checked(observation), info
        except Exception as error:
            return self._blank(), {FAULT: describe_error(error)}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step, or report why that failed."""
        try:
            observation, reward, terminated, truncated, info = self.env.step(action)
            return self._checked(observation), reward, terminated, truncated, info
        except Exception as error:
            return self._blank(), 0.0, False, False, {FAULT: describe_error(error)}

    def _checked(self, observation: Any) -> Any:
        wrong = misshapen(observation, self.observation_space)
        if wrong is not None:
            raise EnvError(f"got {wrong}")
        return observation

    def _blank(self) -> Any:
        return np.zeros(self.observation_space.shape or (), self.observation_space.dtype)


class Workers:
    """An `AsyncVectorEnv` that is abandoned as soon as one of its processes dies or takes too long to answer.

    Args:
        env: the environment, whose sub-environments run in processes.
        timeout: seconds for all of them to answer a step or a reset; None waits as long as they live.
        fault: makes an error that names the sub-environment.

    Raises:
        EnvError: (from `reset`, `step`) a process died or did not answer, or its environment failed; all are ended.
    """

    def __init__(self, env: AsyncVectorEnv, timeout: float | None, fault: Fault) -> None:
        self.env = env
        self.timeout = timeout
        self.fault = fault

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> Any:
        """Reset the sub-environments and wait for them, without a timeout if they replay actions."""
        timeout = None if ACTIONS_OPTION in (options or {}) else self.timeout
        return self._ask(partial(self.env.reset_async, seed, options), self.env.reset_wait, timeout)

    def step(self, actions: Any) -> Any:
        """Step the sub-environments and wait for them."""
        return self._ask(partial(self.env.step_async, actions), self.env.step_wait, self.timeout)

    def call(self, name: str, *arguments: Any) -> tuple[Any, ...]:
        """Call a method of each sub-environment and wait for the results."""
        try:
            self.env.call_async(name, *arguments)
            return self.env.call_wait(timeout=self.timeout)
        except multiprocessing.TimeoutError:
            raise self._given_up(*self._silent()) from None
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            dead = self._dead()
            raise (error if dead is None else self._given_up(*dead)) from error

    def _ask(self, send: Callable[[], None], receive: Callable[..., Any], timeout: float | None) -> Any:
        try:
            send()
            answer = receive(timeout=timeout)
        except multiprocessing.TimeoutError:
            raise self._given_up(*self._silent()) from None
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            dead = self._dead()
            if dead is None:  # raised by the environment itself
                raise
            raise self._given_up(*dead) from error
        info = answer[-1]
        if FAULT in info:
            index = int(np.flatnonzero(info[f"_{FAULT}"])[0])
            raise self._given_up(index, str(info[FAULT][index]))
        return answer

    def _silent(self) -> tuple[int | None, str]:
        silent = [index for index, pipe in enumerate(self.env.parent_pipes) if not pipe.poll(0)]
        dead = self._dead(wait=0.0)
        if dead is not None:
            return dead
        return (silent[0] if silent else None), f"did not answer within {self.timeout:g} s"

    def _dead(self, wait: float = EXIT_TIMEOUT) -> tuple[int, str] | None:
        """Return the first sub-environment whose process has ended, and how it ended."""
        gone = connection.wait([process.sentinel for process in self.env.processes], wait)
        for index, process in enumerate(self.env.processes):
            if process.sentinel in gone:
                process.join(EXIT_TIMEOUT)  # its exit code arrives a moment later
                code = process.exitcode or 0
                how = f"was killed by {Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
                return index, f"lost its process, which {how}"
        return None

    def _given_up(self, index: int | None, text: str) -> EnvError:
        close_env(self.env, at_once=True)
        return self.fault(index, text)


def close_env(env: VectorEnv[Any, Any, Any], *, at_once: bool = False) -> None:
    """Close a vector environment; worker processes that don't end soon are killed."""
    plain = env.unwrapped
    if not isinstance(plain, AsyncVectorEnv):
        env.close()
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an answer may still be pending if a signal ended the run
        if not at_once:
            try:
                env.close(timeout=EXIT_TIMEOUT)
                return
            except (Exception, KeyboardInterrupt):  # a process is gone, or reports the Ctrl-C that also reached it
                pass
        for process in plain.processes:
            process.kill()
        for process in plain.processes:
            process.join(EXIT_TIMEOUT)
        try:
            env.close(terminate=True)
        except (Exception, KeyboardInterrupt):
            plain.closed = True  # there is nothing left to close
