#!/usr/bin/env python3
"""The plugin of the recordings that uses the SDK's XenAPIPlugin."""

import os
import sys
import time

import XenAPIPlugin


def text(session, args):
    return "plain text"


def empty(session, args):
    return ""


def unicode(session, args):
    return "ü <&> 中"


def fail(session, args):
    raise XenAPIPlugin.Failure("REC_CODE", ["one", "two"])


def fail_details(session, args):
    raise XenAPIPlugin.Failure("VM_BAD_POWER_STATE", ["x"])


def boom(session, args):
    raise ValueError("boom text")


def none(session, args):
    return None


def number(session, args):
    return 5


def echo(session, args):
    return repr(sorted(args.items()))


def env(session, args):
    return os.path.basename(sys.argv[0])


def session_works(session, args):
    return str(len(session.xenapi.pool.get_all()))


def sleep(session, args):
    time.sleep(0.4)  # stands for work that takes time; the recorded machine took args["seconds"]
    return "slept"


FUNCTIONS = (text, empty, unicode, fail, fail_details, boom, none, number, echo, env, session_works, sleep)
XenAPIPlugin.dispatch({function.__name__: function for function in FUNCTIONS})
