# Completion of Insula's commands for zsh. Switch it on, after compinit, with:
#     source <(insula completion zsh)
typeset -gA _insula_commands=(
@COMMANDS@
)

_insula() {
    local text
    local -a lines whole begun
    text=$(@PYTHON@ -m insula.tools.complete "${_insula_commands[${words[1]:t}]}" \
        words "${(@Q)words[1,CURRENT-1]}" "${(Q)PREFIX}" 2>/dev/null)
    case $? in
        10) [[ $PREFIX == -*=* ]] && compset -P '*='; _files ;;
        11) [[ $PREFIX == -*=* ]] && compset -P '*='; _files -/ ;;
        *)
            lines=("${(@f)text}")
            whole=("${(@)${(@M)lines:#+*}#+}") begun=("${(@)${(@M)lines:#-*}#-}")
            (( $#whole )) && _describe 'insula' whole
            (( $#begun )) && _describe 'insula' begun -S ''
            ;;
    esac
}

compdef _insula @NAMES@
