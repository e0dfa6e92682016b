# The SSH agent: another qube's with the service split-ssh-client, else the one that this qube gives
# to others once it was asked for it.
if [ -z "${SSH_AUTH_SOCK-}" ]; then
    if [ -e /run/qubes-service/split-ssh-client ]; then
        export SSH_AUTH_SOCK=/run/qubes/split-ssh.sock
    elif [ -S /run/qubes/ssh-agent.sock ]; then
        export SSH_AUTH_SOCK=/run/qubes/ssh-agent.sock
    fi
fi
